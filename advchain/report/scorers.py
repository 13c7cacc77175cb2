"""Two step scorers on the same chains: how far they agree, and whether the same differences between methods follow from either (METHOD 1.6).

Agreement is over the model's own steps, as badness: quadratic weighted kappa of the scores rounded to 1..5, and Spearman's rank correlation. Intervals
draw whole prompts with all their chains; ranks are taken once, over all steps. A drift contrast is the difference of one measure of drift.py between a
method and its reference, from each scorer, over the same draws of prompts for both sides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from advchain.records import Nature, Record, derive_seed
from advchain.report.cells import DIGITS
from advchain.report.drift import rates_of
from advchain.report.grid import Group, groups, partner
from advchain.report.step_chains import Draws, Floats, Frames, Kind, pack_frame
from advchain.report_specs import ScoreSpec

ALL = "all"  # in place of a method: every checkpoint of the model together
LEVELS = 5
WEIGHTS = np.subtract.outer(np.arange(LEVELS), np.arange(LEVELS)).astype(float).ravel() ** 2  # disagreement of two levels
COMPARED = ("drift_rate", "drift_hazard", "recovery_rate", "ends_recovered")


class ScorerAgreement(Record):
    """Agreement of two step scorers on the chains of one method (or of all methods) of a model; None where a scorer says the same of every step."""

    model: str
    method: str
    run: str
    nature: Nature
    chains: Kind
    scorer: str
    other: str
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    spearman: float | None
    spearman_low: float | None
    spearman_high: float | None
    num_steps: int
    num_chains: int
    num_unscored: int


class DriftContrast(Record):
    """method - reference of one measure in 0..1, with its 95 % interval over prompts; `num` and `num_reference` are what the two sides are shares of."""

    model: str
    method: str
    run: str
    reference: str
    reference_run: str
    nature: Nature
    chains: Kind
    scorer: str
    measure: str
    difference: float
    low: float
    high: float
    num: int
    num_reference: int


AGREEMENT_COLUMNS, DRIFT_CONTRAST_COLUMNS = tuple(ScorerAgreement.model_fields), tuple(DriftContrast.model_fields)


def scorer_agreement_path(scores: Path) -> Path:
    """scores.csv -> scorer_agreement.csv in the same folder."""
    return Path(scores).with_name("scorer_agreement.csv")


def drift_contrasts_path(scores: Path) -> Path:
    """scores.csv -> drift_contrasts.csv in the same folder."""
    return Path(scores).with_name("drift_contrasts.csv")


def compare_scorers(spec: ScoreSpec, frames: Mapping[tuple[str, str, str], Frames]) -> tuple[list[ScorerAgreement], list[DriftContrast]]:
    """Return the agreement of every two step scorers on `chain_frames`, by method and over all of a model, and every drift contrast of `spec.contrasts`."""
    return list(_agreements(spec, frames)), list(_contrasts(spec, frames))


# ---------------------------------------------------------------- agreement


def _agreements(spec: ScoreSpec, frames: Mapping[tuple[str, str, str], Frames]) -> Iterator[ScorerAgreement]:
    for model in dict.fromkeys(info.model for info in spec.checkpoints):
        mine = {key: found for key, found in frames.items() if key[0] == model}
        for nature, chains in dict.fromkeys(place[:2] for found in mine.values() for place in found):
            scorers = list(dict.fromkeys(place[2] for found in mine.values() for place in found if place[:2] == (nature, chains)))
            for pair in itertools.combinations(scorers, 2):
                sides = {key: _paired(found, nature, chains, pair) for key, found in mine.items()}
                sides = {key: frame for key, frame in sides.items() if len(frame)}
                for key, frame in ({(model, ALL, ALL): pl.concat(list(sides.values()))} | sides if sides else {}).items():
                    names = (*key, nature, chains, *pair)
                    numbers = agreement_of(frame, derive_seed(spec.seed, "scorers"))
                    yield ScorerAgreement.model_validate(dict(zip(AGREEMENT_COLUMNS, names, strict=False)) | numbers)


def _paired(found: Frames, nature: Nature, chains: Kind, pair: Sequence[str]) -> pl.DataFrame:
    """Return item, mine and theirs (lists of badness) of the chains; theirs is null where the other scorer could not score the chain."""
    first, second = (found.get((nature, chains, scorer)) for scorer in pair)
    if first is None or second is None:
        return pl.DataFrame(schema={"item": pl.String, "mine": pl.List(pl.Float64), "theirs": pl.List(pl.Float64)})
    other = second.select("chain", theirs="steps")
    return first.join(other, on="chain", how="full", coalesce=True, maintain_order="left").select("item", mine="steps", theirs="theirs")


def agreement_of(frame: pl.DataFrame, seed: int) -> dict[str, Any]:
    """Return kappa and Spearman with their bounds from item, mine, theirs (lists of badness of the same steps)."""
    both = frame.filter(pl.col("mine").list.len() == pl.col("theirs").list.len())
    row: dict[str, Any] = {"num_chains": len(both), "num_unscored": len(frame) - len(both)}
    if not len(both):
        return row | {"num_steps": 0} | dict.fromkeys(("kappa", "kappa_low", "kappa_high", "spearman", "spearman_low", "spearman_high"))
    steps = both.with_columns(chain=pl.int_range(pl.len())).explode("mine", "theirs")
    place = steps["chain"].to_numpy()
    draws = Draws(both["item"].rank("dense").to_numpy().astype(np.int64), seed)
    mine, theirs = (steps[name].to_numpy() for name in ("mine", "theirs"))
    return (
        row
        | {"num_steps": len(steps)}
        | _named("kappa", *draws.sums(_tables(mine, theirs, place, len(both))), weighted_kappa)
        | _named("spearman", *draws.sums(_moments(mine, theirs, place, len(both))), correlation)
    )


def _named(name: str, total: Floats, drawn: Floats, statistic: Any) -> dict[str, float | None]:
    value = float(statistic(total[None, :])[0])
    known = statistic(drawn)
    known = known[~np.isnan(known)]
    if math.isnan(value) or not len(known):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = np.quantile(known, [0.025, 0.975])
    return {name: round(value, DIGITS), f"{name}_low": round(float(low), DIGITS), f"{name}_high": round(float(high), DIGITS)}


def _tables(mine: Floats, theirs: Floats, place: npt.NDArray[Any], num_chains: int) -> Floats:
    """Per chain, how often each pair of rounded scores occurs: (chains, 25)."""
    levels = [np.clip(np.floor(scores + 0.5), 1, LEVELS).astype(np.int64) - 1 for scores in (mine, theirs)]
    cells = (place * LEVELS + levels[0]) * LEVELS + levels[1]
    return np.bincount(cells, minlength=num_chains * LEVELS**2).reshape(num_chains, LEVELS**2).astype(float)


def weighted_kappa(tables: Floats) -> Floats:
    """Return quadratic weighted kappa of each table of counts (tables, 25); nan where chance leaves nothing to disagree on."""
    square = tables.reshape(-1, LEVELS, LEVELS)
    chance = np.einsum("ti,tj->tij", square.sum(axis=2), square.sum(axis=1)).reshape(-1, LEVELS**2)
    total = tables.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - (tables @ WEIGHTS) * total / np.where(chance @ WEIGHTS == 0, np.nan, chance @ WEIGHTS))


def _moments(mine: Floats, theirs: Floats, place: npt.NDArray[Any], num_chains: int) -> Floats:
    """Per chain, sums over its steps of 1, x, y, xx, yy, xy, where x and y are ranks over all steps, centred."""
    x, y = (pl.Series(scores).rank("average").to_numpy() for scores in (mine, theirs))
    x, y = x - x.mean(), y - y.mean()
    return np.stack([np.bincount(place, weights, num_chains) for weights in (np.ones(len(x)), x, y, x * x, y * y, x * y)], axis=1)


def correlation(sums: Floats) -> Floats:
    """Return Pearson's correlation from sums of 1, x, y, xx, yy, xy (rows, 6); nan where a side does not vary."""
    n, x, y, xx, yy, xy = sums.T
    spread = (xx - x * x / n) * (yy - y * y / n)
    return np.asarray((xy - x * y / n) / np.sqrt(np.where(spread > 1e-9, spread, np.nan)))


# ---------------------------------------------------------------- contrasts


def _contrasts(spec: ScoreSpec, frames: Mapping[tuple[str, str, str], Frames]) -> Iterator[DriftContrast]:
    rows = groups(spec.checkpoints)
    for treatment, reference in spec.contrasts:
        for group in (group for group in rows if group.method == treatment):
            other = partner(group, reference, rows)
            if other is not None:
                yield from _between(spec, group, other, *(frames[row.model, row.method, row.run] for row in (group, other)))


def _between(spec: ScoreSpec, group: Group, other: Group, mine: Frames, theirs: Frames) -> Iterator[DriftContrast]:
    for place in (place for place in mine if place in theirs and len(mine[place]) and len(theirs[place])):
        names = (group.model, group.method, group.run, other.method, other.run, *place[:2])
        for measure, found in differences(mine[place], theirs[place], place[1], derive_seed(spec.seed, "drift")).items():
            yield DriftContrast.model_validate(dict(zip(DRIFT_CONTRAST_COLUMNS, (*names, place[2], measure), strict=False)) | found)


def differences(mine: pl.DataFrame, theirs: pl.DataFrame, kind: Kind, seed: int) -> dict[str, dict[str, float]]:
    """Return measure -> difference with bounds; a prompt drawn is drawn for both sides. A measure that one side has no chain for is left out."""
    codes = pl.concat([mine["item"], theirs["item"]]).rank("dense").to_numpy().astype(np.int64)
    draws = Draws(codes, seed)
    sides = [rates_of(pack_frame(frame), kind) for frame in (mine, theirs)]
    empty = [np.zeros(len(frame)) for frame in (theirs, mine)]
    found = {}
    for measure in (name for name in COMPARED if name in sides[0]):
        first, second = ([part.astype(float) for part in side[measure]] for side in sides)
        columns = [np.concatenate([part, empty[0]]) for part in first] + [np.concatenate([empty[1], part]) for part in second]
        total, drawn = draws.sums(np.stack(columns, axis=1))
        drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
        if not total[1] or not total[3] or not len(drawn):
            continue
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3], [0.025, 0.975])
        bounds = {"difference": total[0] / total[1] - total[2] / total[3], "low": low, "high": high}
        found[measure] = {name: round(float(number), DIGITS) for name, number in bounds.items()} | {"num": round(total[1]), "num_reference": round(total[3])}
    return found
