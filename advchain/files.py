"""Find the file behind a source or benchmark: shipped with the package, on the hub or GitHub at a pinned revision, or named by the user."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from advchain.errors import AccessError, ConfigError, DataError, StorageError
from advchain.io import sha256_file
from advchain.specs import Origin

log = logging.getLogger(__name__)

GITHUB = "https://raw.githubusercontent.com"  # ADVCHAIN_GITHUB names a mirror, as HF_ENDPOINT does for the hub
TIMEOUT_SECONDS = 20.0
COMMIT = re.compile(r"[0-9a-f]{40}")
VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class Pin:
    """One public file, fixed: `sha256` (or `blob`, git's own id of the content) is checked on every use; without either the observed hash is recorded.

    Args:
        repo: `owner/name`.
        revision: a commit; "main" only where no commit could be verified.
        kind: "hub" (a dataset repository of the Hugging Face hub) or "github".
        gated: terms must be accepted on the repository's page first.
    """

    repo: str
    revision: str
    path: str
    sha256: str | None = None
    kind: Literal["hub", "github"] = "hub"
    blob: str | None = None
    gated: bool = False

    @property
    def page(self) -> str:
        """Where a person reads about the file and accepts its terms."""
        return f"https://github.com/{self.repo}" if self.kind == "github" else f"https://huggingface.co/datasets/{self.repo}"

    def __str__(self) -> str:
        return f"{self.kind}:{self.repo}@{self.revision}:{self.path}"


def locate(origin: Origin, name: str, pin: Pin | None, path: str | None, sample_name: str | None, downloads: Path) -> Path:
    """Return the file of a source or benchmark, fetched if need be.

    Args:
        origin: sample (shipped), hub (`pin`), or local (`path`, with `${VARIABLES}` expanded, relative to the current folder).
        name: what it is for, in messages.
        downloads: folder in which GitHub files are kept; hub files are kept in the hub's own cache (HF_HOME).

    Raises:
        ConfigError: this origin does not exist for `name`, or a variable of `path` is not set.
        AccessError: the hub or GitHub cannot be reached, or terms must be accepted first.
        DataError: the file found is not the pinned one.
        StorageError: the file is missing or cannot be written.
    """
    if origin == "sample":
        return _sample(name, sample_name)
    if origin == "local":
        return _local(name, path)
    if pin is None:
        raise ConfigError(f"{name}: there is no public file to fetch for it. Give your own with `from: local` and `path:`.")
    found = _from_github(name, pin, downloads) if pin.kind == "github" else _from_hub(name, pin)
    return _verify(name, pin, found)


def expand_variables(text: str, where: str) -> str:
    """Replace `$NAME` and `${NAME}` from the environment, and a leading `~`.

    Raises:
        ConfigError: a variable is not set or empty; names it.
    """

    def value(match: re.Match[str]) -> str:
        key = match[1] or match[2]
        if not os.environ.get(key):
            raise ConfigError(f"{where}: path '{text}' needs the environment variable {key}, which is not set. Use `export {key}=/folder/with/the/data`.")
        return os.environ[key]

    return str(Path(VARIABLE.sub(value, text)).expanduser())


def _sample(name: str, sample_name: str | None) -> Path:
    if sample_name is None:
        raise ConfigError(f"{name}: no sample is shipped with the package. Use `from: hub`, or `from: local` with a `path:`.")
    path = Path(str(resources.files("advchain.sample").joinpath(sample_name)))
    if not path.is_file():
        raise StorageError(f"{name}: {path} is missing from the installed package. Install advchain again.")
    return path


def _local(name: str, path: str | None) -> Path:
    if not path:
        raise ConfigError(f"{name}: `from: local` needs a `path:`.")
    found = Path(expand_variables(path, name))
    if found.is_dir():
        raise DataError(f"{name}: {found} is a folder; `path:` must name one file.")
    if not found.is_file():
        raise StorageError(f"{name}: there is no file {found} (looked from {Path.cwd()}). Mend `path:`, or use `from: hub` or `from: sample`.")
    log.info("%s: local file %s, sha256 %s", name, found, sha256_file(found))
    return found


def _verify(name: str, pin: Pin, path: Path) -> Path:
    """Compare a fetched file with its pin; a pin without a hash only logs what was observed (the manifest records it too)."""
    if pin.sha256:
        kind, expected, observed = "sha256", pin.sha256, sha256_file(path)
    elif pin.blob:
        kind, expected, observed = "git blob id", pin.blob, git_blob(path)
    else:
        log.info("%s: %s has sha256 %s (no hash is pinned: note it down to repeat this run)", name, pin, sha256_file(path))
        return path
    if observed != expected:
        raise DataError(
            f"{name}: {path} is not the pinned file of {pin}: its {kind} is {observed}, expected {expected}. It was cut, or it changed upstream. "
            "Delete it and run again; to use it all the same, name it with `from: local` and `path:`."
        )
    return path


def git_blob(path: Path) -> str:
    """Return git's object id of a file's content, the only hash that a bare tree listing gives."""
    size = path.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    digest.update(path.read_bytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------ GitHub


def _from_github(name: str, pin: Pin, downloads: Path) -> Path:
    target = downloads / "github" / pin.repo / pin.revision / pin.path
    if target.is_file() and _is_whole(pin, target):
        return target
    url = f"{os.environ.get('ADVCHAIN_GITHUB', GITHUB).rstrip('/')}/{pin.repo}/{pin.revision}/{pin.path}"
    log.info("%s: fetching %s", name, url)
    _write_bytes(target, _get(name, pin, url))
    return target


def _is_whole(pin: Pin, path: Path) -> bool:
    """Whether a cached file can be used; a damaged one is fetched again."""
    if pin.sha256:
        return sha256_file(path) == pin.sha256
    return git_blob(path) == pin.blob if pin.blob else True


def _get(name: str, pin: Pin, url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code} {error.reason}"
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
    raise AccessError(_cannot_fetch(name, pin, reason))


def _write_bytes(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {len(data)} bytes to {path}: {error.strerror}. Free space or rights there and run again.") from error


# ------------------------------------------------------------------------------------------------ the hub


def _from_hub(name: str, pin: Pin) -> Path:
    """Take the cached copy of a commit; else ask once (the hub client itself would retry an unreachable host for long) and download."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    where: dict[str, Any] = {"repo_id": pin.repo, "filename": pin.path, "repo_type": "dataset", "revision": pin.revision}
    cached = _from_hub_cache(where)
    if cached and COMMIT.fullmatch(pin.revision):
        return cached
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(**where), token=hub.get_token(), timeout=TIMEOUT_SECONDS)
        return Path(hub.hf_hub_download(**where))
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise AccessError(_gated(name, pin)) from error
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise AccessError(_cannot_fetch(name, pin, "the repository no longer has this file at this revision")) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # the http library's base error, whatever its name in this release
        reason = str(error).split("\n")[0]
        if cached is None:
            raise AccessError(_cannot_fetch(name, pin, reason)) from error
        log.warning("%s: the hub cannot be reached (%s); using the cached copy %s", name, reason, cached)
        return cached


def _from_hub_cache(where: dict[str, Any]) -> Path | None:
    import huggingface_hub as hub

    try:
        return Path(hub.hf_hub_download(**where, local_files_only=True))
    except OSError:
        return None  # not cached: it has to be fetched


def _gated(name: str, pin: Pin) -> str:
    return (
        f"{name}: {pin} is gated or private. Accept its terms at {pin.page}, then set the environment variable HF_TOKEN to a token of that account "
        "(or run `hf auth login`) and run again. If you have the file already, use `from: local` with a `path:`."
    )


def _cannot_fetch(name: str, pin: Pin, reason: str) -> str:
    terms = " This one is gated: accept the terms there and set HF_TOKEN." if pin.gated else ""
    return (
        f"{name}: cannot fetch {pin} ({reason.rstrip('.')}). Check the network, its proxy, and {pin.page}.{terms} "
        "Without a network, use `from: local` with the file's `path:` (or `from: sample`, where the package ships one)."
    )
