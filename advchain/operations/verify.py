"""Are the results what was written? Every hash of every manifest, and what a plan of today would make otherwise (RELIABILITY B7, B10).

Snakemake looks at times and declared parameters: a file that was cut or flipped afterwards with its time kept passes there.
What is not covered: logs, benchmark files and the working copies under .work (its stores are: each of their lines carries a checksum).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from advchain import paths
from advchain.errors import StorageError
from advchain.io import sha256_file
from advchain.operations.artefacts import BY_PRODUCT, NOT_RESULTS, STORES, TEMPORARY, Artefact, is_manifest, read_artefact, siblings, walk
from advchain.operations.clean import OURS
from advchain.operations.planned import differing
from advchain.store import damaged_line

Level = Literal["FAIL", "warn"]
CLOCK_SECONDS = 60.0  # that two machines' clocks may differ
SHOWN_PLACES = 4


@dataclass(frozen=True)
class Problem:
    """One finding. `target` is the output to ask for again, None where something else mends it: then `advice` says what."""

    level: Level
    path: Path
    what: str
    target: Path | None = None
    advice: str = ""


@dataclass(frozen=True)
class Verification:
    """All findings on a results folder, with how much was read and how fast."""

    results: Path
    problems: tuple[Problem, ...]
    num_manifests: int
    num_files: int
    num_bytes: int
    seconds: float
    num_other_code: int = 0

    @property
    def failed(self) -> bool:
        """Whether any finding is more than a warning."""
        return any(problem.level == "FAIL" for problem in self.problems)

    @property
    def targets(self) -> list[Path]:
        """Outputs to make again."""
        return sorted({problem.target for problem in self.problems if problem.target and problem.level == "FAIL"})


def verify(results: Path, planned: Mapping[str, Mapping[str, Any]] | None = None, code: str = "") -> Verification:
    """Check a results folder.

    Args:
        results: the folder.
        planned: manifest path -> spec of today (`planned_specs`), for drift; None leaves that out.
        code: the package's code hash, to count files that other code made.

    Raises:
        StorageError: there is no such folder.
    """
    if not results.is_dir():
        raise StorageError(f"there is no folder {results}. Run the pipeline first, or name its results with --results.")
    started = time.monotonic()
    files = list(walk(results, NOT_RESULTS))
    artefacts = [read_artefact(path) for path in files if is_manifest(path, results)]
    hashes = _hash_all(path for artefact in artefacts for path in artefact.files)
    size = sum(path.stat().st_size for path, found in hashes.items() if found)
    found = [problem for artefact in artefacts for problem in _of_artefact(artefact, hashes)]
    found += _unsealed(results, artefacts)
    found += _of_inputs(artefacts, hashes, results)
    found += _of_files(files, artefacts, results)
    found += _of_stores(results)
    if planned is not None:
        found += [problem for artefact in artefacts for problem in _drift(artefact, planned, results)]
    return Verification(
        results=results,
        problems=tuple(sorted(found, key=lambda problem: (problem.level != "FAIL", str(problem.path)))),
        num_manifests=len(artefacts),
        num_files=len(hashes) + len(artefacts),
        num_bytes=size,
        seconds=time.monotonic() - started,
        num_other_code=sum(1 for artefact in artefacts if code and artefact.code not in ("", code)),
    )


def _hash_all(wanted: Iterable[Path]) -> dict[Path, str]:
    """Path -> sha256, "" where there is no such file; hashing leaves the interpreter's lock, so threads help."""
    names = sorted(set(wanted))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(lambda path: sha256_file(path) if path.is_file() else "", names), strict=True))


def _of_artefact(artefact: Artefact, hashes: Mapping[Path, str]) -> Iterator[Problem]:
    if artefact.fault:
        yield Problem("FAIL", artefact.manifest, artefact.fault, artefact.target)
    for path, expected in artefact.files.items():
        if not hashes[path]:
            yield Problem("FAIL", path, "is missing, its manifest is there", artefact.target)
        elif hashes[path] != expected:
            yield Problem("FAIL", path, _difference(path, artefact), artefact.target)


def _difference(path: Path, artefact: Artefact) -> str:
    """Cut, or changed: the rows tell."""
    if path.stat().st_size == 0:
        return "is empty"
    if path == artefact.target and path.suffix == ".jsonl" and artefact.rows is not None:
        rows = path.read_bytes().count(b"\n")
        if rows != artefact.rows:
            return f"has {rows} of {artefact.rows} rows: cut or half-written"
    return "has another sha256 than its manifest: changed or damaged after it was written"


def _unsealed(results: Path, artefacts: Sequence[Artefact]) -> Iterator[Problem]:
    """A folder whose manifests all lack seals is older than they are; a single one was tampered with, or stems from another version."""
    bare = [artefact for artefact in artefacts if not artefact.sealed and not artefact.fault]
    if bare and len(bare) == len(artefacts):
        yield Problem("warn", results, f"its {len(bare)} manifests carry no seal: an earlier version made them, and reject files and pages are not hashed")
        return
    for artefact in bare:
        yield Problem("FAIL", artefact.manifest, "carries no seal, others do: changed by hand, or made by an earlier version", artefact.target)


def _of_inputs(artefacts: Sequence[Artefact], hashes: Mapping[Path, str], results: Path) -> Iterator[Problem]:
    """Inputs of this folder that are sound, and yet not the ones that an output was made from."""
    sound = {path: sha for artefact in artefacts for path, sha in artefact.files.items() if hashes[path] == sha}
    sound |= {artefact.manifest: sha256_file(artefact.manifest) for artefact in artefacts if not artefact.fault}
    for artefact in artefacts:
        for name, expected in artefact.inputs.items():
            path = in_folder(name, results)
            if path in sound and sound[path] != expected:
                yield Problem("FAIL", artefact.target, f"was made from another {path.relative_to(results)} than the one that is there", artefact.target)


def in_folder(name: str, results: Path) -> Path | None:
    """The path of an input as recorded, where it is one of this results folder (which may have been moved since)."""
    parts = Path(name).parts
    return results.joinpath(*parts[1:]) if parts and parts[0] == paths.RESULTS else None


def _of_files(files: Sequence[Path], artefacts: Sequence[Artefact], results: Path) -> Iterator[Problem]:
    """Files that no manifest names, remains of killed jobs, and times in the future."""
    vouched = {path for artefact in artefacts for path in (artefact.manifest, *artefact.files)}
    vouched |= {path for artefact in artefacts if artefact.fault or not artefact.sealed for path in siblings(artefact.manifest)}
    bare = bool(artefacts) and not any(artefact.sealed for artefact in artefacts)
    latest = time.time() + CLOCK_SECONDS
    for path in files:
        part = next((match for part in path.relative_to(results).parts if (match := TEMPORARY.fullmatch(part))), None)
        if part:
            if not _alive(part[1]):
                yield Problem("warn", path, "was left half-written by a job that was killed; nothing reads it", advice=f"rm {path}")
        elif path.relative_to(results).parts[0] not in OURS:
            yield Problem("warn", path, "is none of AdvChain's files", advice="keep it elsewhere: `clean` and `bundle` leave it")
        elif path not in vouched and not bare and not BY_PRODUCT.fullmatch(path.name):
            yield Problem("FAIL", path, "has no manifest: nothing of this version wrote it, or its manifest is gone", _asked_again(path))
        if path.stat().st_mtime > latest:
            ahead = (path.stat().st_mtime - time.time()) / 3600
            yield Problem("FAIL", path, f"has a time {ahead:.1f} hours ahead: what depends on it would run again and again", advice=f"touch {path}")


def _asked_again(path: Path) -> Path | None:
    """A lone output can be asked for again; its reject file goes with it."""
    name = path.name.replace(".rejects.jsonl", ".jsonl")
    return path.with_name(name) if path.suffix in (".jsonl", ".csv", ".md", ".html") else None


def _alive(pid: str | None) -> bool:
    return pid is not None and Path("/proc", pid).exists()


def _of_stores(results: Path) -> Iterator[Problem]:
    """Stores of finished work: paid answers and generations. A damaged line is named; the rest of the file stays good."""
    work = results / ".work"
    for path in walk(work) if work.is_dir() else ():
        number = damaged_line(path) if path.suffix in STORES else None
        if number:
            yield Problem("FAIL", path, f"line {number} is damaged: its checksum does not hold", advice=f"sed -i {number}d {path}; its row is made again")


def _drift(artefact: Artefact, planned: Mapping[str, Mapping[str, Any]], results: Path) -> Iterator[Problem]:
    """What a run of today would make otherwise: it makes these again by itself."""
    now = planned.get(str(Path(paths.RESULTS) / artefact.manifest.relative_to(results)))
    if now is None or artefact.fault:
        return
    places = list(differing(artefact.spec, now))
    code = [place for place in places if place.split(".")[-1] == "version"]
    settings = [place for place in places if place not in code]
    if code:
        was = ", ".join(f"{place} {_at(artefact.spec, place)} -> {_at(now, place)}" for place in code[:SHOWN_PLACES])
        yield Problem("warn", artefact.target, f"code drift: its stage has another VERSION now ({was})", advice="a plain run makes it again")
    if settings:
        more = f" and {len(settings) - SHOWN_PLACES} more" if len(settings) > SHOWN_PLACES else ""
        yield Problem("warn", artefact.target, f"config drift: {', '.join(settings[:SHOWN_PLACES])}{more}", advice="a plain run makes it again")


def _at(value: Any, place: str) -> Any:
    for part in place.replace("[", ".").replace("]", "").split("."):
        value = value[int(part)] if isinstance(value, list) else (value or {}).get(part)
    return value
