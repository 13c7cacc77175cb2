"""The grid's files as frames: one cell per checkpoint and evaluation, and one per group of seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from advchain.errors import ConfigError, DataError
from advchain.report.frames import per_item, read_responses, read_verdicts
from advchain.report.grid import Group, asked, groups
from advchain.report_specs import EvaluationInfo, ScoreSpec

Key = tuple[str, str, str, str]  # model, method, run, evaluation
DIGITS = 6  # of every rate written to a file


@dataclass(frozen=True)
class Cell:
    """The frames of one checkpoint (or of one group's checkpoints, stacked) on one evaluation.

    `run_index` of a verdict tells the stacked checkpoints apart: their response ids may be the same.
    """

    model: str
    method: str
    run: str
    evaluation: str
    info: EvaluationInfo
    verdicts: pl.DataFrame
    responses: pl.DataFrame

    @cached_property
    def items(self) -> dict[str, pl.DataFrame]:
        """Counts per item (`per_item`) of every judge that gives one label to a response."""
        return {judge: per_item(self.verdicts, judge, kind) for judge, kind in self.info.judges.items() if kind != "steps"}


def load_cells(spec: ScoreSpec, verdicts: Mapping[Key, Path], responses: Mapping[Key, Path]) -> dict[Key, Cell]:
    """Return every checkpoint's cells, then the pooled cells of groups with several seeds."""
    keys = cell_keys(spec)
    if len(set(keys)) < len(keys):
        raise ConfigError(f"score: a checkpoint is listed twice: {'/'.join(max(keys, key=keys.count)[:3])}. Give each run its own name.")
    cells = {key: _load(key, spec.evaluations[key[3]], verdicts, responses) for key in keys}
    for group in groups(spec.checkpoints):
        if len(group.members) > 1:
            cells |= _pool(group, cells, spec)
    return cells


def cell_keys(spec: ScoreSpec) -> list[Key]:
    """Return (model, method, run, evaluation) of every cell of the grid: whose files `score` needs."""
    return [(info.model, info.method, info.run, name) for info in spec.checkpoints for name in spec.evaluations if asked(info, name)]


def cell_paths(folder: Path, keys: Iterable[Key]) -> dict[Key, Path]:
    """Return each cell's file under a folder of responses or verdicts, by the results layout."""
    return {key: folder / key[0] / key[1] / key[2] / f"{key[3]}.jsonl" for key in keys}


def _load(key: Key, info: EvaluationInfo, verdicts: Mapping[Key, Path], responses: Mapping[Key, Path]) -> Cell:
    if key not in verdicts or key not in responses:
        raise DataError(f"score: no verdict or response file was given for {'/'.join(key)}. Run the judge rule of that checkpoint and evaluation.")
    answered = read_responses(responses[key])
    return Cell(*key, info, read_verdicts(verdicts[key], info, answered).with_columns(run_index=pl.lit(0, pl.UInt16)), answered)


def _pool(group: Group, cells: Mapping[Key, Cell], spec: ScoreSpec) -> dict[Key, Cell]:
    pooled: dict[Key, Cell] = {}
    for evaluation, info in spec.evaluations.items():
        parts = [cells[member.model, member.method, member.run, evaluation] for member in group.members if asked(member, evaluation)]
        if not parts:
            continue
        verdicts = pl.concat([part.verdicts.with_columns(run_index=pl.lit(number, pl.UInt16)) for number, part in enumerate(parts)])
        key = (group.model, group.method, group.run, evaluation)
        pooled[key] = Cell(*key, info, verdicts, pl.concat([part.responses for part in parts]))
    return pooled
