"""Paired differences between two methods on the same items: the only comparisons the report makes in words (RELIABILITY 7b).

Per item, the share of positive verdicts over its samples and seeds; items that either side left without a counted verdict are out of the pair
and counted. p is the exact McNemar test; with several samples per item the permutation test that swaps the two methods within items, exact too.
The interval draws items, so it carries no variance between training seeds.

Two families, each with its own Holm adjustment (our choice, see DECISIONS.md): what a table says as a whole, all its prompts taken
together, is the claim; the sets one by one say where it comes from.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from advchain import stats
from advchain.records import Record, derive_seed
from advchain.report.cells import DIGITS, Cell, Key
from advchain.report.grid import LOWER_IS_BETTER, METRIC_TITLE, Group, groups, judges_of, partner
from advchain.report_specs import EvaluationInfo, ScoreSpec

log = logging.getLogger(__name__)
ALPHA = 0.05


POOLED = "all:"
TABLE_TITLE = {
    "safety": "Harmful prompts",
    "hijack": "Hijacked chains",
    "attacks": "Further attacks",
    "over_refusal": "Benign prompts",
    "reasoning": "Reasoning",
}


class Contrast(Record):
    """`difference` = treatment - reference in 0..1, with its 95 % interval; `p_holm` is adjusted over the contrasts of the same family.

    `benchmark` is an evaluation, or "all:<table>" where the prompts of several are taken together.
    """

    model: str
    method: str
    run: str
    reference: str
    reference_run: str
    benchmark: str
    metric: str
    judge: str
    family: Literal["table", "set"]
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    num_items: int
    num_unpaired: int
    established: bool
    sentence: str


CONTRAST_COLUMNS = tuple(Contrast.model_fields)
Shares = npt.NDArray[np.float64]


class Measure(NamedTuple):
    """One thing compared: `parts` are (evaluation, judge), several where sets are taken together."""

    name: str
    family: Literal["table", "set"]
    parts: tuple[tuple[str, str], ...]
    metric: str


def contrasts(spec: ScoreSpec, cells: Mapping[Key, Cell]) -> list[Contrast]:
    """Return the contrasts of `spec.contrasts` for every group and primary judge, by table and by set; `conclude` gives them words."""
    return [_contrast(spec, cells, *pair) for pair in _pairs(spec)]


def conclude(spec: ScoreSpec, found: Sequence[Contrast]) -> list[Contrast]:
    """Return the contrasts of a whole grid Holm-adjusted within each family, with what is established and its sentence."""
    adjusted = {family: iter(stats.holm([row.p for row in found if row.p is not None and row.family == family])) for family in ("table", "set")}
    return [_conclude(row, next(adjusted[row.family]) if row.p is not None else None, spec) for row in found]


def _pairs(spec: ScoreSpec) -> Iterator[tuple[Group, Group, Measure]]:
    rows = groups(spec.checkpoints)
    for treatment, reference in spec.contrasts:
        for group in (group for group in rows if group.method == treatment):
            other = partner(group, reference, rows)
            if other is None:
                continue  # this grid does not hold the reference (or not at this learning rate): nothing to compare
            for measure in _measures(spec, group, other):
                yield group, other, measure


def _measures(spec: ScoreSpec, group: Group, other: Group) -> list[Measure]:
    """What both groups were asked: tables first. A table's only set stands for the table; further attacks have no mean, each is its own set."""
    tables: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for evaluation, info in spec.evaluations.items():
        for judge, kind, metric, primary in judges_of(info) if group.has(evaluation) and other.has(evaluation) else ():
            if primary and kind != "steps":
                tables.setdefault((info.table, metric), []).append((evaluation, judge))
    whole = [
        Measure(POOLED + table if len(parts) > 1 else parts[0][0], "table", tuple(parts), metric)
        for (table, metric), parts in tables.items()
        if table != "attacks"
    ]
    several = [(metric, parts) for (table, metric), parts in tables.items() if len(parts) > 1 or table == "attacks"]
    single = [Measure(part[0], "set", (part,), metric) for metric, parts in several for part in parts]
    order = list(spec.evaluations)
    return whole + sorted(single, key=lambda measure: order.index(measure.name))


def _contrast(spec: ScoreSpec, cells: Mapping[Key, Cell], group: Group, other: Group, measure: Measure) -> Contrast:
    left, right, num_unpaired = _paired(cells, group, other, measure)
    seed = derive_seed(spec.seed, "contrast", group.model, group.method, group.run, other.method, other.run, measure.name, measure.metric)
    difference, low, high, p = _difference(left, right, seed, spec.bootstrap_draws)
    return Contrast(
        model=group.model,
        method=group.method,
        run=group.run,
        reference=other.method,
        reference_run=other.run,
        benchmark=measure.name,
        metric=measure.metric,
        judge=", ".join(dict.fromkeys(judge for _, judge in measure.parts)),
        family=measure.family,
        difference=difference,
        low=low,
        high=high,
        p=p,
        p_holm=None,
        num_items=len(left),
        num_unpaired=num_unpaired,
        established=False,
        sentence="",
    )


def _paired(cells: Mapping[Key, Cell], group: Group, other: Group, measure: Measure) -> tuple[Shares, Shares, int]:
    """Shares per item on both sides over all parts, and how many items had no partner."""
    lefts, rights, unpaired = [], [], 0
    for evaluation, judge in measure.parts:
        mine, theirs = (cells[row.model, row.method, row.run, evaluation].items[judge] for row in (group, other))
        left, right, num_items = _pair(mine, theirs)
        lefts.append(left)
        rights.append(right)
        unpaired += num_items - len(left)
    return np.concatenate(lefts), np.concatenate(rights), unpaired


def _pair(mine: pl.DataFrame, theirs: pl.DataFrame) -> tuple[Shares, Shares, int]:
    """Shares per item on both sides, for the items counted on both; and the number of items on either side."""
    num_items = len(mine)
    if not mine["item_id"].equals(theirs["item_id"]):  # both are sorted by item
        num_items += len(theirs)
        mine, theirs = (one.join(other.select("item_id"), on="item_id", how="semi", maintain_order="left") for one, other in ((mine, theirs), (theirs, mine)))
        num_items -= len(mine)
    positive, counted = (np.stack([side[name].to_numpy() for side in (mine, theirs)]) for name in ("num_positive", "num_counted"))
    both = (counted > 0).all(axis=0)
    left, right = positive[:, both] / counted[:, both]
    return left, right, num_items


def _difference(left: Shares, right: Shares, seed: int, draws: int) -> tuple[float | None, float | None, float | None, float | None]:
    """(difference, low, high, p), all None without a pair."""
    if not len(left):
        return None, None, None, None
    found = stats.paired_bootstrap(left, right, num_draws=draws, seed=seed)
    single = bool(np.isin(left, (0, 1)).all() and np.isin(right, (0, 1)).all())
    p = stats.mcnemar(int((left > right).sum()), int((left < right).sum())) if single else stats.sign_flip(left - right, num_draws=draws, seed=seed)
    return round(found.value, DIGITS), round(found.low, DIGITS), round(found.high, DIGITS), p


def _conclude(contrast: Contrast, p_holm: float | None, spec: ScoreSpec) -> Contrast:
    """Established: the interval excludes 0 and the Holm-adjusted p is below 0.05."""
    apart = contrast.low is not None and contrast.high is not None and (contrast.low > 0 or contrast.high < 0)
    established = apart and p_holm is not None and p_holm < ALPHA
    done = contrast.model_copy(update={"p": _short(contrast.p), "p_holm": _short(p_holm), "established": established})
    return done.model_copy(update={"sentence": sentence(done, margin_of(done, spec.evaluations))})


def _short(p: float | None) -> float | None:
    return None if p is None else float(f"{p:.3g}")


def margin_of(contrast: Contrast, evaluations: Mapping[str, EvaluationInfo]) -> float | None:
    """Return the equivalence margin of a set; sets taken together have none."""
    info = evaluations.get(contrast.benchmark)
    return info.margin if info else None


def sentence(contrast: Contrast, margin: float | None) -> str:
    """Return the words for one contrast: what was found, with interval, n and p, or that nothing is established."""
    if contrast.difference is None or contrast.low is None or contrast.high is None:
        return "not established: no item was judged on both sides"
    points = [100 * number for number in (contrast.difference, contrast.low, contrast.high)]
    tail = f"n = {contrast.num_items}, p = {show_p(contrast.p or 0.0)}"
    if contrast.p_holm is not None and contrast.p_holm >= 0.001 and show_p(contrast.p_holm) != show_p(contrast.p or 0.0):
        tail += f" ({show_p(contrast.p_holm)} after Holm)"
    if contrast.established:
        low, high = sorted(abs(point) for point in points[1:])
        return f"{'lower' if points[0] < 0 else 'higher'} by {abs(points[0]):.1f} points [{low:.1f}, {high:.1f}], {tail}"
    return f"not established: {points[0]:+.1f} points [{points[1]:+.1f}, {points[2]:+.1f}], {tail}" + _equivalence(contrast, margin)


def _equivalence(contrast: Contrast, margin: float | None) -> str:
    """No loss is a claim of its own: it needs an interval inside the margin, not a large p (RELIABILITY 7b)."""
    if margin is None or contrast.low is None or contrast.high is None:
        return ""
    seen = 3 / contrast.num_items < margin  # without a single differing item a bootstrap has no width: rule of three
    inside = seen and -margin < contrast.low and contrast.high < margin
    return f"; {'equal' if inside else 'not shown to be equal'} within {100 * margin:g} points"


def show_p(p: float) -> str:
    """0.0123 -> "0.012"; what would be 0.000 in powers of ten: "2e-05"."""
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}"


def better(contrast: Contrast) -> bool:
    """Whether an established difference is in the wanted direction (lower ASR, ORR; higher RR, pass@1)."""
    return contrast.difference is not None and (contrast.difference < 0) == (contrast.metric in LOWER_IS_BETTER)


def heading(contrast: Contrast, evaluations: Mapping[str, EvaluationInfo]) -> str:
    """Return set and metric as the tables name them; for several sets, what they have in common."""
    table = contrast.benchmark.removeprefix(POOLED)
    if table == contrast.benchmark:
        return f"{evaluations[table].title} {METRIC_TITLE[contrast.metric]}"
    return f"{TABLE_TITLE[table]} {METRIC_TITLE[contrast.metric]} (all sets)"
