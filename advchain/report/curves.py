"""Step scores over the relative position in a chain, for the training data: where does a temptation rise and does it come down again?

Every chain is used (the paper selected chains by outcome, METHOD 1.6). Each chain is read at 11 relative positions by linear interpolation
between its steps, so that long chains weigh no more than short ones; bands are 95 % bootstraps over chains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from advchain import stats
from advchain.io import iter_records
from advchain.records import Nature, Sample, derive_seed
from advchain.report.markup import Table

NUM_POSITIONS = 11
NUM_DRAWS = 2000
KIND_TITLE = {"tc": "T-C", "hc": "H-C", "plain": "plain"}
COLUMNS = ("nature", "kind", "position", "mean", "low", "high", "num_chains", "scorer")
Scorer = Callable[[Sequence[str], Nature], list[float]]


class Curve(NamedTuple):
    """Mean score at each relative position, with its band."""

    nature: Nature
    kind: str
    num_chains: int
    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]

    @property
    def title(self) -> str:
        """As the legend names it."""
        return f"{KIND_TITLE[self.kind]} (n = {self.num_chains})"


def training_curves(files: Iterable[Path], scorer: Scorer) -> list[Curve]:
    """Score every distinct chain of the sample files; one curve per nature and kind, in a fixed order."""
    chains: dict[tuple[Nature, str], dict[tuple[str, ...], npt.NDArray[np.float64]]] = {}
    for path in files:
        for sample in iter_records(path, Sample):
            steps = tuple(step.rendered for step in sample.steps)
            known = chains.setdefault((sample.nature, sample.kind), {})
            if steps and steps not in known:  # recipes share rows: each chain counts once
                known[steps] = _resample(scorer(steps, sample.nature))
    return [_curve(nature, kind, np.stack(list(found.values()))) for (nature, kind), found in sorted(chains.items(), key=_order) if found]


def _order(entry: tuple[tuple[Nature, str], object]) -> tuple[bool, int]:
    (nature, kind), _ = entry
    return nature != "harmful", list(KIND_TITLE).index(kind)


def _resample(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.interp(np.linspace(0, 1, NUM_POSITIONS), np.linspace(0, 1, len(scores)), scores)


def _curve(nature: Nature, kind: str, rows: npt.NDArray[np.float64]) -> Curve:
    """`rows`: (chains, positions)."""
    bounds = [
        stats.paired_bootstrap(column.tolist(), [0.0] * len(column), num_draws=NUM_DRAWS, seed=derive_seed("curve", nature, kind, index))
        for index, column in enumerate(rows.T)
    ]
    return Curve(nature, kind, len(rows), rows.mean(axis=0), np.array([b.low for b in bounds]), np.array([b.high for b in bounds]))


def curves_table(curves: Sequence[Curve], scorer: str) -> Table:
    """Return the curves' numbers: a row per curve, a column per position."""
    positions = np.linspace(0, 1, NUM_POSITIONS)
    return Table(
        name="curves",
        title=f"Mean step score over the chain, scored by {scorer}",
        header=["Prompts", "Chains", *(f"{100 * position:.0f} %" for position in positions)],
        rows=[[curve.nature, curve.title, *(f"{value:.2f}" for value in curve.mean)] for curve in curves],
        columns=COLUMNS,
        raw=[
            dict(zip(COLUMNS, (c.nature, c.kind, round(float(x), 2), *(round(float(v), 4) for v in (m, lo, hi)), c.num_chains, scorer), strict=True))
            for c in curves
            for x, m, lo, hi in zip(positions, c.mean, c.low, c.high, strict=True)
        ],
        notes=["1 to 5; 5 leans to complying: harmful on harmful prompts, helpful on benign ones. Training data, all chains, none selected."] if curves else [],
        empty="No training data was given.",
    )
