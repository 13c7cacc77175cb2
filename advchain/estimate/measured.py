"""What earlier runs took, from the manifests in results/: rates, which hold for other numbers of rows, epochs and prompts too."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from advchain import paths

log = logging.getLogger(__name__)
CPU = "cpu"


@dataclass(frozen=True)
class Run:
    """One finished job: wall seconds, tokens trained on (over all epochs) or written, and of how many rows or answers.

    `host_gib` is the peak of host memory where it was measured (trainings on a CPU), `gpus` whether it ran on any. `size` is that of its training set, or
    the longest answer that it allowed: lengths and memory say nothing about others.
    """

    method: str
    seconds: float
    tokens: float
    rows: int
    gpus: bool
    size: int = 0
    host_gib: float = 0.0


@dataclass
class Measured:
    """Finished jobs of a results folder: trainings and generations by model, seconds per verdict by evaluation, calls by chain set or attack."""

    trainings: dict[str, list[Run]] = field(default_factory=dict)
    generations: dict[str, list[Run]] = field(default_factory=dict)
    judging: dict[str, list[Run]] = field(default_factory=dict)
    fetched: dict[str, float] = field(default_factory=dict)
    calls: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, results: Path) -> Measured:
        """Read what there is; a folder without finished jobs gives nothing."""
        found = cls(calls=_calls(results))
        for path, value in _manifests(results / "checkpoints", "*/*/*/model.json"):
            found.trainings.setdefault(path.parts[-4], []).append(_training(path, value))
        for path, value in _manifests(results / "generated", "*/*/*/*.json"):
            if _mostly_made(value.get("counts", {})):
                found.generations.setdefault(path.parts[-4], []).append(_generation(path, value))
        for path, value in _manifests(results / "verdicts", "*/*/*/*.manifest.json"):
            found.judging.setdefault(path.name.removesuffix(".manifest.json"), []).append(_judging(path, value))
        for path, value in _manifests(results / "models", "*/model.json"):
            found.fetched[path.parts[-2]] = float(value["manifest"].get("seconds") or 0)
        return found

    def on(self, gpus: bool) -> Measured:
        """Only jobs that ran with, or without, GPUs: the others say nothing about this plan."""
        return replace(self, trainings=_those(self.trainings, gpus), generations=_those(self.generations, gpus))


def _those(jobs: Mapping[str, Sequence[Run]], gpus: bool) -> dict[str, list[Run]]:
    kept = {model: [run for run in runs if run.gpus == gpus] for model, runs in jobs.items()}
    return {model: runs for model, runs in kept.items() if runs}


def _manifests(folder: Path, pattern: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Manifests that can be read; a damaged one is `verify`'s business and only left out here."""
    for path in sorted(folder.glob(pattern)):
        try:
            yield path, json.loads(path.read_bytes())
        except ValueError:
            log.warning("estimate: %s cannot be read and is left out", path)


def _training(path: Path, value: dict[str, Any]) -> Run:
    about, counts = value["manifest"], value["manifest"]["counts"]
    gpus, epochs = about.get("device", CPU) != CPU, value["spec"]["epochs"]
    host = 0.0 if gpus else float(about.get("peak_memory_gib") or 0)
    size = counts["rows"] + counts.get("held_out", 0)
    return Run(path.parts[-3], about["seconds"], counts["tokens"] * epochs, counts["rows"] * epochs, gpus, size, host)


def _mostly_made(counts: Mapping[str, Any]) -> bool:
    """Whether a job made at least half of its answers: where most were in the store, it says how long an engine starts and how slow few answers at once are."""
    return bool(counts.get("generated")) and 2 * counts["generated"] >= counts.get("wanted", 0)


def _generation(path: Path, value: dict[str, Any]) -> Run:
    counts, sampling = value["counts"], value.get("spec", {}).get("sampling", {})
    longest = max((settings["max_new_tokens"] for settings in sampling.values()), default=0)
    return Run(path.parts[-3], value["seconds"], counts["tokens"], counts["generated"], bool(value.get("gpus", 0)), longest)


def _judging(path: Path, value: dict[str, Any]) -> Run:
    judges = max(1, len(value["spec"].get("judges", ())))
    return Run(path.parts[-3], value["seconds"], 0.0, value["output"]["rows"] // judges, False)


def _calls(results: Path) -> dict[str, dict[str, float]]:
    """Chain set or attack -> answers, tokens and money of its manifest."""
    found: dict[str, dict[str, float]] = {}
    for folder in (Path(paths.CHAINS).parent.name, Path(paths.PROMPTS).parent.name):
        for path, value in _manifests(results / folder, "*.manifest.json"):
            counts = value.get("counts", {})
            if counts.get("answers"):
                found[path.name.removesuffix(".manifest.json")] = {key: float(counts[key]) for key in ("answers", "input_tokens", "output_tokens", "usd")}
    return found


def rate(runs: Sequence[Run]) -> float:
    """Tokens per second of the middle one of some jobs, 0 where none wrote any: one that others slowed down does not count."""
    return median([run.tokens / run.seconds for run in runs if run.seconds] or [0.0])


def tokens_per_row(runs: Sequence[Run], method: str, size: int) -> float | None:
    """Mean tokens of a row or answer of one method at one size, None where none was measured."""
    own = [run for run in runs if run.method == method and run.size == size and run.rows]
    return sum(run.tokens for run in own) / sum(run.rows for run in own) if own else None


def peak_gib(runs: Sequence[Run], size: int) -> float:
    """Largest host memory of some jobs at one size, GiB; 0 where it was not measured."""
    return max((run.host_gib for run in runs if run.size == size), default=0.0)
