"""Delete what one stage made. Bought answers are a stage of their own: nothing else ever takes them, not even `all`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from advchain.errors import ConfigError, StorageError, did_you_mean
from advchain.operations.artefacts import walk

# Stage -> what it made, below the results folder. Later stages are not included: they run again by themselves once these are gone.
STAGES = {
    "chains": ("sources", "chains", "datasets", "contamination", "contamination.md", "contamination.manifest.json", "export", "published.json"),
    "models": ("models",),
    "train": ("checkpoints", ".work/training"),
    "generate": ("prompts", "generated", "responses", "views", ".work/responses"),
    "judge": ("verdicts", "judges"),
    "report": (
        *("scores.csv", "scores.manifest.json", "contrasts.csv", "drift.csv", "drift_curves.csv", "drift_contrasts.csv", "scorer_agreement.csv"),
        *("variance.csv", "disagreements.csv", "tables", "figures"),
        *("report.html", "report.manifest.json", "summary.md", "explorer"),
    ),
    "work": (".work/training", ".work/responses", ".work/downloads"),
    "answers": (".work/teacher", ".work/attacker", ".work/judge"),
}
LOGS = ("logs", "benchmarks")
OURS = {name.split("/")[0] for names in STAGES.values() for name in names} | set(LOGS)  # everything at the top of a results folder
BOUGHT = "answers"
ALL = "all"


@dataclass(frozen=True)
class Doomed:
    """One file or folder to delete, with what is in it."""

    path: Path
    num_files: int
    num_bytes: int


def doomed(results: Path, stages: Sequence[str]) -> list[Doomed]:
    """Return what cleaning the stages would delete, largest first.

    Raises:
        ConfigError: an unknown stage.
        StorageError: the folder is no results folder.
    """
    known = [*STAGES, ALL]
    for stage in stages:
        if stage not in known:
            raise ConfigError(f"clean: unknown stage '{stage}'; {did_you_mean(stage, known)}")
    check_folder(results)
    names = {name for stage in stages if stage != ALL for name in STAGES[stage]}
    if ALL in stages:
        names |= {name for stage, own in STAGES.items() if stage != BOUGHT for name in own} | set(LOGS)
    found = [_measured(results / name) for name in sorted(names) if os.path.lexists(results / name)]
    return sorted(found, key=lambda item: -item.num_bytes)


def check_folder(results: Path) -> None:
    """Refuse what does not look like a results folder, and one that a run may be writing to.

    Raises:
        StorageError: says why.
    """
    if not results.is_dir():
        raise StorageError(f"clean: there is no folder {results}. Name it with --results.")
    foreign = sorted(path.name for path in results.iterdir() if path.name not in OURS)
    if foreign and len(foreign) > len([path for path in results.iterdir() if path.name in OURS]):
        raise StorageError(
            f"clean: {results} does not look like a results folder (it holds {', '.join(foreign[:5])}). Nothing was deleted; name the right one."
        )
    locks = results.absolute().parent / ".snakemake/locks"
    if locks.is_dir() and any(locks.iterdir()):
        raise StorageError(
            f"clean: a run holds {locks.parent.parent}. Nothing was deleted: wait for it. If it was killed, the next `snakemake` run or `snakemake --unlock` "
            "clears its lock."
        )


def _measured(path: Path) -> Doomed:
    """A link counts as nothing: only the link is deleted, never what it leads to."""
    if path.is_symlink():
        return Doomed(path, 1, 0)
    files = [file for file in walk(path) if not file.is_symlink()] if path.is_dir() else [path]
    return Doomed(path, len(files), sum(file.stat().st_size for file in files))


def delete(items: Iterable[Doomed]) -> None:
    """Delete; a link is removed, not followed.

    Raises:
        StorageError: something cannot be deleted.
    """
    for item in items:
        try:
            if item.path.is_dir() and not item.path.is_symlink():
                shutil.rmtree(item.path)
            else:
                item.path.unlink()
        except OSError as error:
            raise StorageError(f"clean: cannot delete {error.filename or item.path}: {error.strerror}. What came before it in the list is gone.") from error


def stages_of(path: Path, results: Path) -> list[str]:
    """The stages that made a path."""
    name = path.relative_to(results).as_posix()
    return [stage for stage, names in STAGES.items() if name in names]
