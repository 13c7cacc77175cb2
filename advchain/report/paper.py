"""The paper's printed numbers, typed, and the difference between ours and theirs with an interval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from advchain import stats
from advchain.catalogue import read_yaml
from advchain.errors import ConfigError
from advchain.records import Record

FIELDS = ("model", "method", "benchmark", "metric", "value", "n", "note")


class PaperNumber(Record):
    """One printed cell. `value` is in per cent, as printed; `n` inferred, None where it cannot be."""

    model: str
    method: str
    benchmark: str
    metric: str
    value: float
    n: int | None = None
    note: str = ""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson interval in 0..1 on the inferred count, None without n."""
        if self.n is None:
            return None
        bounds = stats.wilson(round(self.value * self.n / 100), self.n)
        return bounds.low, bounds.high


PaperKey = tuple[str, str, str, str]


def load_paper(path: Path) -> dict[PaperKey, PaperNumber]:
    """Read config/paper_numbers.yaml, keyed by (model, method, benchmark, metric).

    Raises:
        ConfigError: a cell does not fit or is given twice; names it.
    """
    found: dict[PaperKey, PaperNumber] = {}
    for index, cell in enumerate(read_yaml(path).get("cells", [])):
        number = _number(path, index, cell)
        key = (number.model, number.method, number.benchmark, number.metric)
        if key in found:
            raise ConfigError(f"{path}: cells[{index}]: {' / '.join(key)} is given twice. Keep one.")
        found[key] = number
    return found


def _number(path: Path, index: int, cell: Any) -> PaperNumber:
    if not isinstance(cell, list) or not 6 <= len(cell) <= 7:
        raise ConfigError(f"{path}: cells[{index}]: expected [{', '.join(FIELDS[:-1])}, note if any], found {cell!r}.")
    try:
        return PaperNumber.model_validate(dict(zip(FIELDS, cell, strict=False)))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: cells[{index}].{first['loc'][0]}: {first['msg']}; the value given is {first['input']!r}.") from None


class Gap(NamedTuple):
    """Ours minus the paper's in points of per cent; `low`, `high` None where ours has no interval."""

    value: float
    low: float | None
    high: float | None


def difference(value: float, low: float | None, high: float | None, paper: PaperNumber) -> Gap:
    """Return ours - paper in points, from our rate in 0..1 and its interval.

    The two runs are independent, so the interval combines the distances of both intervals from their values (Newcombe's hybrid
    score interval). Without an inferred n the paper's number is taken as exact: only our own error is in the interval.
    """
    printed = paper.value / 100
    gap = value - printed
    if low is None or high is None:
        return Gap(100 * gap, None, None)
    paper_low, paper_high = paper.interval or (printed, printed)
    below = math.hypot(value - low, max(paper_high - printed, 0.0))
    above = math.hypot(high - value, max(printed - paper_low, 0.0))
    return Gap(100 * gap, 100 * (gap - below), 100 * (gap + above))
