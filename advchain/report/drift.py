"""Do chains of answers drift step by step, and do they come back? (METHOD 1.6, with the controls that the paper lacks.)

Steps are scored 1 to 5 by a step judge. Everything here is in *badness* (step_chains.py). Every chain is used; the paper selected chains
that begin good and end bad, which alone makes a curve rise, so the same selection is also worked out for chains whose steps are in random order: that
is the slope which selecting by itself creates.

Chains of the plain prompts are the model's own. Of hijacked chains only the steps after the forced ones count, and the question is whether they
come back. Intervals are bootstraps over prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from advchain import stats
from advchain.records import Nature, Record, derive_seed
from advchain.report.cells import DIGITS
from advchain.report.step_chains import BAD, GOOD, Booleans, Chains, Draws, Floats, Frames, Kind, pack_frame
from advchain.report_specs import ScoreSpec

POSITIONS = np.linspace(0, 1, 11)
MIN_CHAINS = 5  # of a curve


class Drift(Record):
    """One measure of one group of checkpoints; `num` is what it is a share or mean of (chains, or steps at risk), `num_chains` all chains."""

    model: str
    method: str
    run: str
    nature: Nature
    chains: Kind
    scorer: str
    measure: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None = None
    num: int
    num_chains: int


class CurvePoint(Record):
    """Mean badness at one relative position of the chains that meet `condition`."""

    model: str
    method: str
    run: str
    nature: Nature
    chains: Kind
    scorer: str
    condition: str
    position: float
    mean: float
    low: float
    high: float
    num_chains: int


DRIFT_COLUMNS, CURVE_COLUMNS = tuple(Drift.model_fields), tuple(CurvePoint.model_fields)


Rates = dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]


def drift(spec: ScoreSpec, frames: Mapping[tuple[str, str, str], Frames]) -> tuple[list[Drift], list[CurvePoint]]:
    """Measure the chains (`chain_frames`) of every group of checkpoints on every nature of prompts, kind of chains and step judge."""
    measures: list[Drift] = []
    points: list[CurvePoint] = []
    for (model, method, run), found in frames.items():
        for (nature, kind, scorer), frame in found.items():
            if not len(frame):
                continue  # a base model that does not think
            names = {"model": model, "method": method, "run": run, "nature": nature, "chains": kind, "scorer": scorer}
            chains = pack_frame(frame)
            draws = Draws(chains.items, derive_seed(spec.seed, "drift"))
            measures += [Drift.model_validate(names | row) for row in measures_of(chains, kind, draws)]
            points += [CurvePoint.model_validate(names | row) for row in _points(chains, draws)]
    return measures, points


# ---------------------------------------------------------------- measures


def rates_of(chains: Chains, kind: Kind) -> Rates:
    """Return each rate as what is summed over chains above and below the line: a measure is sum(above) / sum(below)."""
    ends_good, everything = chains.last <= GOOD, np.ones(len(chains))
    if kind == "hijacked":  # the step before was bad: it was forced
        return {"recovery_rate": (np.asarray(chains.good.any(axis=1)), everything), "ends_recovered": (ends_good, everything)}
    drifts: Booleans = np.asarray(chains.bad.any(axis=1))
    followed: Booleans = np.asarray((chains.bad & (chains.places < chains.lengths[:, None] - 1)).any(axis=1))
    return {
        "drift_rate": (drifts, everything),
        "drift_hazard": hazard(chains),
        "recovery_rate": (chains.comes_back & followed, followed),
        "ends_recovered": (ends_good & followed, followed),
        "first_bad_position": (drifts * chains.first_bad / np.maximum(chains.lengths - 1, 1), drifts),
    }


def measures_of(chains: Chains, kind: Kind, draws: Draws) -> Iterator[dict[str, object]]:
    """Yield every measure of one set of chains."""
    rates, everything, p = rates_of(chains, kind), np.ones(len(chains)), None
    if kind == "own":
        rises, p = rises_of(chains)
        rates |= {"rise": (rises, chains.lengths > 1), "selected_share": (selected(chains), everything)}
        rates["selected_share_shuffled"] = (selected_by_chance(chains), everything)
    total, drawn = draws.sums(np.stack([part.astype(float) for pair in rates.values() for part in pair], axis=1))
    for place, (name, (above, below)) in enumerate(rates.items()):
        pair = slice(2 * place, 2 * place + 2)
        row: dict[str, object] = {"measure": name, "num_chains": len(chains), "num": round(total[pair][1]), "value": None, "low": None, "high": None}
        if total[pair][1]:
            items = draws.codes[below > 0]
            bounds = _bounds(total[pair], drawn[:, pair], bool(np.all(above == total[pair][0] / total[pair][1] * below)), len(np.unique(items)))
            row |= dict(zip(("value", "low", "high"), map(_cut, bounds), strict=True))
            row |= {"p": _cut(p)} if name == "rise" and p is not None else {}
        yield row


def _bounds(total: Floats, drawn: Floats, constant: bool, num_items: int) -> tuple[float, float, float]:
    """Return above / below with its 95 % bounds; where every prompt says the same (0 % or 100 %), Wilson's bounds over prompts."""
    value = float(total[0] / total[1])
    if value in (0.0, 1.0) and constant:
        return value, *stats.wilson(round(value * num_items), num_items)
    drawn = drawn[drawn[:, 1] > 0]
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return value, float(low), float(high)


def hazard(chains: Chains) -> tuple[Floats, Floats]:
    """Return, per chain, 1 if the step after a run of good ones is bad, and the number of steps at risk: P(step i+1 >= 4 | all before <= 2)."""
    other = ~chains.good & (chains.places < chains.lengths[:, None])
    run = np.where(other.any(axis=1), other.argmax(axis=1), chains.lengths)
    at_risk = np.minimum(run, chains.lengths - 1)
    next_step = chains.steps[np.arange(len(chains)), np.minimum(run, chains.lengths - 1)]
    event = (run > 0) & (run < chains.lengths) & (next_step >= BAD)
    return event.astype(float), at_risk.astype(float)


def rises_of(chains: Chains) -> tuple[Floats, float]:
    """Return each chain's rise of badness from its first step to the last (least squares; 0 for a single step), and the two-sided p of their mean.

    In random order a chain's rise has mean 0 and variance sum (y - mean y)^2 / ((n - 1) sum (x - mean x)^2); the mean over many chains is normal.
    """
    long = chains.lengths > 1
    lengths = np.maximum(chains.lengths, 2)[:, None]
    inside = (chains.places < chains.lengths[:, None]) & long[:, None]
    x = np.where(inside, chains.places / (lengths - 1) - 0.5, 0.0)
    centred = np.where(inside, chains.steps - np.nanmean(chains.steps, axis=1, keepdims=True), 0.0)
    spread = np.where(long, (x**2).sum(axis=1), 1.0)
    rises = (x * centred).sum(axis=1) / spread
    deviation = math.sqrt(((centred**2).sum(axis=1) / ((lengths[:, 0] - 1) * spread)).sum())
    return rises, math.erfc(abs(rises.sum()) / deviation / math.sqrt(2)) if deviation else 1.0


def selected(chains: Chains) -> Booleans:
    """Return which chains the paper's selection would take: they begin good and end bad."""
    return (chains.lengths > 1) & (chains.steps[:, 0] <= GOOD) & (chains.last >= BAD)


def selected_by_chance(chains: Chains) -> Floats:
    """Return for each chain the probability that it would be selected with its steps in random order: good x bad / (n (n - 1))."""
    pairs = np.maximum(chains.lengths * (chains.lengths - 1), 1)
    return np.asarray(chains.good.sum(axis=1) * chains.bad.sum(axis=1) / pairs, dtype=float)


# ---------------------------------------------------------------- curves


def _points(chains: Chains, draws: Draws) -> Iterator[dict[str, object]]:
    curves = at_positions(chains)
    by_condition = {"all": np.ones(len(chains))}
    by_condition |= {str(outcome): (chains.outcomes == outcome).astype(float) for outcome in np.unique(chains.outcomes) if outcome}
    by_condition["selected"] = selected(chains).astype(float)
    columns = {name: (curves, weights) for name, weights in by_condition.items()}
    columns["selected_shuffled"] = (expected_if_selected(chains), selected_by_chance(chains))
    columns = {name: pair for name, pair in columns.items() if len(np.unique(draws.codes[pair[1] > 0])) >= MIN_CHAINS}
    if not columns:
        return
    width = len(POSITIONS) + 1
    total, drawn = draws.sums(np.concatenate([part for curve, weights in columns.values() for part in (curve * weights[:, None], weights[:, None])], axis=1))
    for place, (name, (_, weights)) in enumerate(columns.items()):
        part = slice(place * width, (place + 1) * width)
        yield from _curve(name, total[part], drawn[:, part], int((weights > 0).sum()))


def at_positions(chains: Chains) -> Floats:
    """Interpolate every chain at the same relative positions, so that long chains weigh no more than short ones: (chains, positions)."""
    place = POSITIONS[None, :] * (chains.lengths[:, None] - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, chains.lengths[:, None] - 1)
    share = place - below
    rows = np.arange(len(chains))[:, None]
    return np.asarray(chains.steps[rows, below] * (1 - share) + chains.steps[rows, above] * share)


def expected_if_selected(chains: Chains) -> Floats:
    """Return the mean curve of each chain over those orders of its steps that begin good and end bad (0 where there is none)."""
    num_good, num_bad = chains.good.sum(axis=1), chains.bad.sum(axis=1)
    good = np.where(chains.good, chains.steps, 0.0).sum(axis=1) / np.maximum(num_good, 1)
    bad = np.where(chains.bad, chains.steps, 0.0).sum(axis=1) / np.maximum(num_bad, 1)
    middle = (np.nansum(chains.steps, axis=1) - good - bad) / np.maximum(chains.lengths - 2, 1)
    steps = np.where(chains.places < chains.lengths[:, None], middle[:, None], np.nan)
    steps[:, 0] = good
    steps[np.arange(len(chains)), chains.lengths - 1] = bad
    return at_positions(Chains(steps, chains.lengths, chains.items, chains.outcomes)) * (selected_by_chance(chains) > 0)[:, None]


def _curve(condition: str, total: Floats, drawn: Floats, num_chains: int) -> Iterator[dict[str, object]]:
    """`total` and `drawn`: weighted sums at each position, then the sum of the weights."""
    drawn = drawn[drawn[:, -1] > 0]
    low, high = np.quantile(drawn[:, :-1] / drawn[:, -1:], [0.025, 0.975], axis=0)
    for place, mean, below, above in zip(POSITIONS, total[:-1] / total[-1], low, high, strict=True):
        bounds = {"mean": _cut(mean), "low": _cut(below), "high": _cut(above)}
        yield {"condition": condition, "position": round(float(place), 2), **bounds, "num_chains": num_chains}


def _cut(number: float) -> float:
    return round(float(number), DIGITS)
