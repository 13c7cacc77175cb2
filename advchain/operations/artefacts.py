"""What lies in a results folder: each manifest with the files it vouches for, and the files that none does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advchain.manifests import seal_holds
from advchain.models import CARD

NOT_RESULTS = {".work", "logs", "benchmarks"}  # at the top of the folder: work in progress, and what is written about jobs
STORES = {".store", ".replies", ".verdicts", ".batches"}  # under .work: each line carries its own checksum
BY_PRODUCT = re.compile(r".*\.(failed|unparsed)\.jsonl")  # rows kept by a job that failed, to be read
TEMPORARY = re.compile(r"\..+?(?:\.(\d+)\.(?:tmp|old)|\.whole)")
MARKERS = ("generated",)
NAMED_MANIFESTS = {CARD, "export.json", "published.json"}


@dataclass(frozen=True)
class Artefact:
    """One manifest.

    Attributes:
        manifest: its path.
        target: the output that a rule is asked for to make it again.
        files: path -> sha256 of every file it vouches for.
        rows: rows of the target, where the manifest tells.
        fault: what is wrong with the manifest itself, "" for nothing; the rest is then empty.
        sealed: whether it carries a hash of itself.
    """

    manifest: Path
    target: Path
    files: Mapping[Path, str] = field(default_factory=dict)
    rows: int | None = None
    stage: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    fault: str = ""
    sealed: bool = True


def walk(folder: Path, skip: frozenset[str] | set[str] = frozenset()) -> Iterator[Path]:
    """Yield every file under `folder`, sorted, without the top-level entries named in `skip`; linked folders are entered once."""
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(root)
        folders[:] = [] if place in seen else sorted(name for name in folders if not (Path(root) == folder and name in skip))
        if place not in seen:
            yield from (Path(root, name) for name in sorted(files))
        seen.add(place)


def is_manifest(path: Path, results: Path) -> bool:
    """Whether a file of a results folder is a manifest."""
    parts = path.relative_to(results).parts
    return path.name.endswith(".manifest.json") or path.name in NAMED_MANIFESTS or (parts[0] in MARKERS and path.suffix == ".json")


def read_artefact(path: Path) -> Artefact:
    """Read one manifest; what is wrong with it is told, not raised."""
    try:
        text = path.read_bytes().decode("utf-8")
        sealed, value = seal_holds(text), json.loads(text)
    except (OSError, ValueError) as error:
        return Artefact(path, _target(path, {}), fault=f"cannot be read ({type(error).__name__})")
    if not isinstance(value, dict) or sealed is False:
        return Artefact(path, _target(path, {}), fault="was changed after it was written: its seal does not hold")
    files = {path.parent / name: str(sha) for name, sha in {**value.get("weights_sha256", {}), **_files(value)}.items()}
    about = value.get("manifest", value)  # model.json wraps it
    return Artefact(
        manifest=path,
        target=_target(path, value),
        files=files,
        rows=value.get("output", {}).get("rows"),
        stage=str(about.get("stage", "")),
        spec=about.get("spec", {}),
        inputs=about.get("inputs", {}),
        code=str(about.get("code", "")),
        sealed=sealed is not None,
    )


def _files(value: Mapping[str, Any]) -> dict[str, str]:
    """Name -> sha256: the output, and what stands with it."""
    output = value.get("output", {})
    main = {output["path"]: output["sha256"]} if "sha256" in output else {}
    return {**main, **value.get("files", {})}


def _target(path: Path, value: Mapping[str, Any]) -> Path:
    """The declared output that stands for a manifest: a rule is asked for it by name."""
    if path.name == "export.json":
        return path.with_name("README.md")
    if not path.name.endswith(".manifest.json"):
        return path
    if "output" in value:
        return path.parent / str(value["output"]["path"])
    stem = path.name.removesuffix("manifest.json")
    return next((file for file in siblings(path) if file.suffix in (".jsonl", ".json", ".csv", ".md", ".html")), path.with_name(f"{stem}jsonl"))


def siblings(manifest: Path) -> list[Path]:
    """Files that a manifest may stand for, by their names: all that is known where it cannot be read. A model folder is one thing."""
    if manifest.name in NAMED_MANIFESTS:
        return sorted(path for path in manifest.parent.rglob("*") if path.is_file())
    stem = manifest.name.removesuffix("manifest.json")
    found = sorted(path for path in manifest.parent.iterdir() if path.name.startswith(stem) and path != manifest and ".rejects." not in path.name)
    return [*found, manifest.with_name(f"{stem}rejects.jsonl")]
