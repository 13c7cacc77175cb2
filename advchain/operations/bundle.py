"""A finished run as one file to pass on: tables, figures, report, every manifest, config and versions; no weights, no raw text unless asked.

The same results give the same bytes: sorted names, no times, no owners, gzip without a name. MANIFEST.json holds the sha256 of every member.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from advchain import __version__
from advchain.errors import AdvChainError, DataError, StorageError
from advchain.io import atomic_write, sha256_file
from advchain.operations.artefacts import NOT_RESULTS, is_manifest, walk
from advchain.operations.clean import OURS

MANIFEST = "MANIFEST.json"
FORMAT = "advchain bundle 1"
ALWAYS = ("tables", "figures", "judges")  # folders without anybody's prompt or answer in them
WITH_TEXT = ("explorer", "sources", "chains", "datasets", "prompts", "responses", "views", "verdicts", "contamination", "export")
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf", ".store")
MAX_MEMBER = 1 << 31


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written or checked."""

    path: Path
    sha256: str
    num_files: int
    num_bytes: int


def write_bundle(path: Path, results: Path, provenance: Mapping[str, bytes], with_text: bool = False, secrets: Mapping[str, str] | None = None) -> Bundle:
    """Write the bundle of a finished results folder, and `<path>.sha256` beside it.

    Args:
        provenance: further members by name (config, pins, PROVENANCE.md), written beside `results/`.
        with_text: also prompts, chains, responses and the explorer: HARMFUL TEXT.
        secrets: variable -> value; a file that holds one is refused.

    Raises:
        DataError: the run is not finished, a link leads out of the folder, or a file holds a key.
        StorageError: the disk is full or read-only.
    """
    found = {f"results/{name}": file.read_bytes() for name, file in chosen(results, with_text)}
    contents = dict(sorted({**provenance, **found}.items()))
    _refuse_secrets(contents, secrets or {})
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in contents.items()}
    head = {"format": FORMAT, "advchain": __version__, "with_text": with_text, "files": listed}
    everything = {MANIFEST: (json.dumps(head, indent=2, sort_keys=True) + "\n").encode(), **contents}
    with atomic_write(path, binary=True) as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for name, data in everything.items():
            tar.addfile(_member(name, len(data)), io.BytesIO(data))
    digest = sha256_file(path)
    with atomic_write(path.with_name(f"{path.name}.sha256")) as file:
        file.write(f"{digest}  {path.name}\n")
    return Bundle(path, digest, len(contents), path.stat().st_size)


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info


def chosen(results: Path, with_text: bool) -> Iterator[tuple[str, Path]]:
    """Yield (name below results/, file) of what goes into a bundle.

    Raises:
        DataError: there is no report, or a link leads out of the folder.
    """
    if not (results / "report.html").is_file() or not (results / "scores.csv").is_file():
        raise DataError(f"bundle: {results} holds no report.html and scores.csv, so the run is not finished. Run `snakemake --cores all` first.")
    root = results.resolve()
    folders = {*ALWAYS, *(WITH_TEXT if with_text else ())}
    for file in walk(results, NOT_RESULTS):
        name = file.relative_to(results)
        if not _wanted(file, name, folders, results):
            continue
        if not file.resolve().is_relative_to(root):
            raise DataError(f"bundle: {file} is a link that leads out of {results} (to {file.resolve()}). Put the file itself there, or remove the link.")
        yield name.as_posix(), file


def _wanted(file: Path, name: Path, folders: set[str], results: Path) -> bool:
    if file.suffix in WEIGHTS or file.name.startswith("."):
        return False
    if name.parts[0] not in OURS:
        return False
    if len(name.parts) == 1 or is_manifest(file, results) or file.name.endswith(".card.md") or name.parts[0] in folders:
        return True
    return file.name == "training.jsonl"  # losses by step


def _refuse_secrets(contents: Mapping[str, bytes], secrets: Mapping[str, str]) -> None:
    for variable, value in secrets.items():
        if len(value) >= 8:
            holder = next((name for name, data in contents.items() if value.encode() in data), None)
            if holder:
                raise DataError(f"bundle: {holder} holds the value of {variable}. Nothing was written: find out how it got there, and change the key.")


def check_bundle(path: Path) -> Bundle:
    """Read a bundle through and compare every member with its MANIFEST.json; nothing is unpacked.

    Raises:
        DataError: a member differs, is missing or is not listed, a name leads out of the folder, or a member is no plain file.
        StorageError: the file cannot be read.
    """
    try:
        with tarfile.open(path, mode="r:gz") as tar:
            found = {member.name: (hashlib.sha256(data).hexdigest(), data) for member, data in _members(path, tar)}
    except AdvChainError:
        raise
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read as a bundle ({error}). It was cut or damaged: copy it again.") from error
    if MANIFEST not in found:
        raise DataError(f"{path} has no {MANIFEST}: it is no bundle of AdvChain.")
    listed = _listed(path, found.pop(MANIFEST)[1])
    for name in sorted({*listed, *found}):
        if name not in found or name not in listed or listed[name] != found[name][0]:
            what = "is missing" if name not in found else "is not listed" if name not in listed else "has another sha256"
            raise DataError(f"{path}: {name} {what}. The bundle was changed after it was written: get it again from where it was made.")
    _check_beside(path)
    return Bundle(path, sha256_file(path), len(found), sum(len(data) for _, data in found.values()))


def _members(path: Path, tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for member in tar:
        place = PurePosixPath(member.name)
        if place.is_absolute() or ".." in place.parts or not member.isreg() or member.size > MAX_MEMBER:
            raise DataError(f"{path}: member '{member.name}' leads out of the bundle or is no plain file. Do not unpack it: this is not how bundles are made.")
        data = tar.extractfile(member)
        assert data is not None
        yield member, data.read()


def _listed(path: Path, text: bytes) -> dict[str, str]:
    try:
        value = json.loads(text)
        return {str(name): str(facts["sha256"]) for name, facts in value["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {MANIFEST} cannot be read ({type(error).__name__}). The bundle was changed: get it again.") from error


def _check_beside(path: Path) -> None:
    """Compare with `<path>.sha256`, where that came along."""
    beside = path.with_name(f"{path.name}.sha256")
    if beside.is_file() and beside.read_text(encoding="utf-8").split()[:1] != [sha256_file(path)]:
        raise DataError(f"{path} has another sha256 than {beside.name} says. One of the two is from another run, or was damaged.")


def secrets_of(names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables of the environment that hold keys, by their names."""
    known = ("_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
    return {name: value for name, value in (names or os.environ).items() if name.endswith(known) and value}
