"""Step scores along the training chains: where does a temptation rise and does it come down again?

Every chain is used (the paper selected chains by outcome, METHOD 1.6). Two readings: at 11 relative positions, by linear interpolation
between a chain's steps, so that long chains weigh no more than short ones; and by the distance from the injected step, because injections
sit anywhere in the chain and a mean over relative positions flattens them. Bands are 95 % bootstraps over chains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from advchain import stats
from advchain.io import iter_records
from advchain.records import Nature, Sample, derive_seed
from advchain.report.markup import Table

Axis = Literal["relative", "aligned"]
POSITIONS: dict[Axis, npt.NDArray[np.float64]] = {"relative": np.linspace(0, 1, 11), "aligned": np.arange(-3.0, 4.0)}
NUM_DRAWS = 2000
MIN_CHAINS = 2  # of a point: short chains do not reach every distance
KIND_TITLE = {"tc": "T-C", "hc": "H-C", "plain": "plain", "control": "control"}
COLUMNS = ("axis", "nature", "kind", "position", "mean", "low", "high", "num_chains", "scorer")
Scorer = Callable[[Sequence[str], Nature], list[float]]
Scored = tuple[list[float], int | None]  # scores of a chain, index of its injected error


class Curve(NamedTuple):
    """Mean score at each position (nan where too few chains reach it), with its band."""

    axis: Axis
    nature: Nature
    kind: str
    num_chains: int
    counts: list[int]
    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]

    @property
    def title(self) -> str:
        """As the legend names it."""
        return f"{KIND_TITLE[self.kind]} (n = {self.num_chains})"


def training_curves(files: Iterable[Path], scorer: Scorer) -> list[Curve]:
    """Score every distinct chain of the sample files; a curve per axis, nature and kind, in a fixed order."""
    chains: dict[tuple[Nature, str], dict[tuple[str, ...], Scored]] = {}
    for path in files:
        for sample in iter_records(path, Sample):
            steps = tuple(step.rendered for step in sample.steps)
            known = chains.setdefault((sample.nature, sample.kind), {})
            if steps and steps not in known:  # recipes share rows: each chain counts once
                known[steps] = scorer(steps, sample.nature), next((i for i, step in enumerate(sample.steps) if step.role == "error"), None)
    curves = []
    for (nature, kind), found in sorted(chains.items(), key=_order):
        rows = [_relative(scores) for scores, _ in found.values()]
        aligned = [_aligned(scores, error) for scores, error in found.values() if error is not None]
        curves += [_curve(axis, nature, kind, np.stack(part)) for axis, part in _axes(rows, aligned) if part]
    return curves


def _axes(relative: list[npt.NDArray[np.float64]], aligned: list[npt.NDArray[np.float64]]) -> tuple[tuple[Axis, list[npt.NDArray[np.float64]]], ...]:
    return ("relative", relative), ("aligned", aligned)


def _order(entry: tuple[tuple[Nature, str], object]) -> tuple[bool, int]:
    (nature, kind), _ = entry
    return nature != "harmful", list(KIND_TITLE).index(kind)


def _relative(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.interp(POSITIONS["relative"], np.linspace(0, 1, len(scores)), scores)


def _aligned(scores: Sequence[float], error: int) -> npt.NDArray[np.float64]:
    places = [error + int(offset) for offset in POSITIONS["aligned"]]
    return np.array([scores[place] if 0 <= place < len(scores) else np.nan for place in places])


def _curve(axis: Axis, nature: Nature, kind: str, rows: npt.NDArray[np.float64]) -> Curve:
    """`rows`: (chains, positions), nan where a chain does not reach."""
    points = [_point(column[~np.isnan(column)], derive_seed("curve", axis, nature, kind, index)) for index, column in enumerate(rows.T)]
    counts = [int((~np.isnan(column)).sum()) for column in rows.T]
    mean, low, high = (np.array([point[part] for point in points]) for part in range(3))
    return Curve(axis, nature, kind, len(rows), counts, mean, low, high)


def _point(scores: npt.NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    if len(scores) < MIN_CHAINS:
        return np.nan, np.nan, np.nan
    bounds = stats.paired_bootstrap(scores.tolist(), [0.0] * len(scores), num_draws=NUM_DRAWS, seed=seed)
    return bounds.value, bounds.low, bounds.high


def curves_table(curves: Sequence[Curve], scorer: str) -> Table:
    """Return the curves' numbers: a row per curve over relative positions; the CSV holds both axes."""
    return Table(
        name="curves",
        title=f"Mean step score over the chain, scored by {scorer}",
        header=["Prompts", "Chains", *(f"{100 * position:.0f} %" for position in POSITIONS["relative"])],
        rows=[[curve.nature, curve.title, *(f"{value:.2f}" for value in curve.mean)] for curve in curves if curve.axis == "relative"],
        columns=COLUMNS,
        raw=[dict(zip(COLUMNS, row, strict=True)) for curve in curves for row in _raw(curve, scorer)],
        notes=[
            "1 to 5; 5 leans to complying: harmful on harmful prompts, helpful on benign ones. Training data, all chains, none selected.",
            "The CSV also holds the scores by distance from the injected step (axis: aligned).",
        ]
        if curves
        else [],
        empty="No training data was given.",
    )


def _raw(curve: Curve, scorer: str) -> list[tuple[object, ...]]:
    points = zip(POSITIONS[curve.axis], curve.mean, curve.low, curve.high, curve.counts, strict=True)
    return [
        (curve.axis, curve.nature, curve.kind, round(float(x), 2), *(None if np.isnan(v) else round(float(v), 4) for v in values), count, scorer)
        for x, *values, count in points
    ]
