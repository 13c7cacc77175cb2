"""Upload an exported training set to the hub: only where the config says so, and never to a repository of another visibility."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from advchain.errors import AccessError, ConfigError, DataError
from advchain.io import sha256_file
from advchain.manifests import make_manifest, write_manifest
from advchain.specs import PublishSpec

log = logging.getLogger(__name__)


def publish(record: Path, folder: Path, spec: PublishSpec) -> None:
    """Create the repository if need be, upload the folder, and write what was uploaded where.

    A public repository is gated: its owner grants each download by hand (METHOD 7.8).

    Raises:
        DataError: the folder holds no guard report, or that of another training set.
        ConfigError: `publish.repo_id` or `publish.private` is not set, or the repository there has another visibility.
        AccessError: no token, no rights, or the hub cannot be reached.
    """
    repo_id, private = _settings(spec)
    _check_guard_report(folder, spec)
    import huggingface_hub as hub
    from huggingface_hub import errors

    api = hub.HfApi()
    where: dict[str, Any] = {"repo_id": repo_id, "repo_type": "dataset"}
    try:
        api.create_repo(**where, private=private, exist_ok=True)
        found = bool(api.repo_info(**where).private)
        if found != private:
            raise ConfigError(
                f"publish.private is {private}, but {repo_id} exists and is {'private' if found else 'public'}. Nothing was uploaded: change the setting, "
                "or the repository on its page, so that both agree."
            )
        if not private:
            api.update_repo_settings(**where, gated="manual")
        commit: Any = api.upload_folder(**where, folder_path=folder, commit_message=f"Training set {spec.recipe}")
    except (errors.HfHubHTTPError, errors.HTTPError, errors.LocalTokenNotFoundError, ConnectionError) as error:  # type: ignore[attr-defined]
        reason = str(error).strip().split("\n")[0]
        raise AccessError(
            f"publish: the hub refused or could not be reached for {repo_id} ({reason}). Set HF_TOKEN to a token with write access to that repository "
            "(or run `hf auth login`), check the network, and run again."
        ) from error
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    about = {"commit": str(commit.oid), "url": str(commit.commit_url), "uploaded": files}
    write_manifest(record, make_manifest("publish", spec.model_dump()) | about)
    log.info("published %s to %s (%s)", spec.recipe, repo_id, "private" if private else "public, gated")


def _check_guard_report(folder: Path, spec: PublishSpec) -> None:
    """What is uploaded carries a guard's reading of every row of just this training set (RELIABILITY E8)."""
    try:
        report, exported = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("guard.json", "export.json"))
        fits = report["dataset_sha256"] in exported["inputs"].values() and (folder / "guard.md").is_file()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"publish: {folder} holds no guard report ({error}). Make it with `snakemake {folder}/guard.json`, read guard.md, then publish."
        ) from error
    if not fits:
        raise DataError(
            f"publish: the guard report in {folder} is of another training set than the exported one. Make it again: `snakemake {folder}/guard.json`."
        )
    log.info("guard report of %s: %d answers flagged", spec.recipe, len(report["flagged_answers"]))


def _settings(spec: PublishSpec) -> tuple[str, bool]:
    missing = [f"publish.{name}" for name in ("repo_id", "private") if getattr(spec, name) is None]
    if missing or spec.repo_id is None or spec.private is None:
        raise ConfigError(
            f"{' and '.join(missing)} not set: nothing is uploaded without both. Review results/export/{spec.recipe} first, then set in your config "
            "`publish: {repo_id: owner/name, private: true}`."
        )
    if spec.repo_id.count("/") != 1:
        raise ConfigError(f"publish.repo_id: '{spec.repo_id}' is not owner/name.")
    return spec.repo_id, spec.private
