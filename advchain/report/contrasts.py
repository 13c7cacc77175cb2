"""Paired differences between two methods on the same items: the only comparisons the report makes in words (RELIABILITY 7b).

Per item, the share of positive verdicts over its samples and seeds; items that either side left without a counted verdict are out of the pair
and counted. p is the exact McNemar test; with several samples per item a permutation test that swaps the two methods within items. The
interval draws items, so it carries no variance between training seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from advchain import stats
from advchain.records import Record, derive_seed
from advchain.report.cells import DIGITS, Cell, Key
from advchain.report.frames import per_item
from advchain.report.grid import LOWER_IS_BETTER, METRIC_TITLE, Group, groups, judges_of, partner
from advchain.specs import EvaluationInfo, ScoreSpec

log = logging.getLogger(__name__)
ALPHA = 0.05


class Contrast(Record):
    """`difference` = treatment - reference in 0..1, with its 95 % interval; `p_holm` is adjusted over all contrasts of the file."""

    model: str
    method: str
    run: str
    reference: str
    reference_run: str
    benchmark: str
    metric: str
    judge: str
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


def contrasts(spec: ScoreSpec, cells: Mapping[Key, Cell]) -> list[Contrast]:
    """Return the contrasts of `spec.contrasts` for every group, evaluation and primary judge, Holm-adjusted together."""
    found = [_contrast(spec, cells, *pair) for pair in _pairs(spec)]
    adjusted = iter(stats.holm([contrast.p for contrast in found if contrast.p is not None]))
    return [_conclude(contrast, next(adjusted) if contrast.p is not None else None, spec) for contrast in found]


def _pairs(spec: ScoreSpec) -> Iterator[tuple[Group, Group, str, str, str, str]]:
    rows = groups(spec.checkpoints)
    for treatment, reference in spec.contrasts:
        for group in (group for group in rows if group.method == treatment):
            other = partner(group, reference, rows)
            if other is None:
                continue  # this grid does not hold the reference (or not at this learning rate): nothing to compare
            for evaluation, info in spec.evaluations.items():
                for judge, kind, metric, primary in judges_of(info) if group.has(evaluation) and other.has(evaluation) else ():
                    if primary and kind != "steps":
                        yield group, other, evaluation, judge, kind, metric


def _contrast(spec: ScoreSpec, cells: Mapping[Key, Cell], group: Group, other: Group, evaluation: str, judge: str, kind: str, metric: str) -> Contrast:
    mine, theirs = (per_item(cells[row.model, row.method, row.run, evaluation].verdicts, judge, kind) for row in (group, other))
    left, right = _pair(mine, theirs)
    seed = derive_seed(spec.seed, "contrast", group.model, group.method, group.run, other.method, other.run, evaluation, metric)
    difference, low, high, p = _difference(left, right, seed, spec.bootstrap_draws)
    return Contrast(
        model=group.model,
        method=group.method,
        run=group.run,
        reference=other.method,
        reference_run=other.run,
        benchmark=evaluation,
        metric=metric,
        judge=judge,
        difference=difference,
        low=low,
        high=high,
        p=p,
        p_holm=None,
        num_items=len(left),
        num_unpaired=len(set(mine["item_id"]) | set(theirs["item_id"])) - len(left),
        established=False,
        sentence="",
    )


def _pair(mine: pl.DataFrame, theirs: pl.DataFrame) -> tuple[Shares, Shares]:
    """Shares per item on both sides, for the items counted on both."""
    both = mine.join(theirs, on="item_id", how="inner", suffix="_other").filter((pl.col("num_counted") > 0) & (pl.col("num_counted_other") > 0))
    both = both.sort("item_id")  # a join keeps no order, and the bootstrap draws by position
    return (both["num_positive"] / both["num_counted"]).to_numpy(), (both["num_positive_other"] / both["num_counted_other"]).to_numpy()


def _difference(left: Shares, right: Shares, seed: int, draws: int) -> tuple[float | None, float | None, float | None, float | None]:
    """(difference, low, high, p), all None without a pair."""
    if not len(left):
        return None, None, None, None
    found = stats.paired_bootstrap(left.tolist(), right.tolist(), num_draws=draws, seed=seed)
    single = bool(np.isin(left, (0, 1)).all() and np.isin(right, (0, 1)).all())
    p = stats.mcnemar(int((left > right).sum()), int((left < right).sum())) if single else _swap_test(left - right, draws, seed)
    return round(found.value, DIGITS), round(found.low, DIGITS), round(found.high, DIGITS), p


def _swap_test(differences: Shares, draws: int, seed: int) -> float:
    """Two-sided permutation p of the mean difference under random swaps of the methods within items; never below 1 / (draws + 1)."""
    rng = np.random.default_rng(seed)
    observed, extreme = abs(differences.sum()) - 1e-9, 0
    for start in range(0, draws, 500):  # blocks keep memory flat for thousands of items
        signs = rng.choice((-1.0, 1.0), size=(min(500, draws - start), len(differences)))
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (extreme + 1) / (draws + 1)


def _conclude(contrast: Contrast, p_holm: float | None, spec: ScoreSpec) -> Contrast:
    """Established: the interval excludes 0 and the Holm-adjusted p is below 0.05."""
    apart = contrast.low is not None and contrast.high is not None and (contrast.low > 0 or contrast.high < 0)
    established = apart and p_holm is not None and p_holm < ALPHA
    done = contrast.model_copy(update={"p": _short(contrast.p), "p_holm": _short(p_holm), "established": established})
    return done.model_copy(update={"sentence": sentence(done, spec.evaluations[contrast.benchmark])})


def _short(p: float | None) -> float | None:
    return None if p is None else float(f"{p:.3g}")


def sentence(contrast: Contrast, info: EvaluationInfo) -> str:
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
    return f"not established: {points[0]:+.1f} points [{points[1]:+.1f}, {points[2]:+.1f}], {tail}" + _equivalence(contrast, info)


def _equivalence(contrast: Contrast, info: EvaluationInfo) -> str:
    """No loss is a claim of its own: it needs an interval inside the margin, not a large p (RELIABILITY 7b)."""
    if info.margin is None or contrast.low is None or contrast.high is None:
        return ""
    seen = 3 / contrast.num_items < info.margin  # without a single differing item a bootstrap has no width: rule of three
    inside = seen and -info.margin < contrast.low and contrast.high < info.margin
    return f"; {'equal' if inside else 'not shown to be equal'} within {100 * info.margin:g} points"


def show_p(p: float) -> str:
    """0.0123 -> "0.012"; below 0.001 in powers of ten: "2e-05"."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def better(contrast: Contrast) -> bool:
    """Whether an established difference is in the wanted direction (lower ASR, ORR; higher RR, pass@1)."""
    return contrast.difference is not None and (contrast.difference < 0) == (contrast.metric in LOWER_IS_BETTER)


def heading(contrast: Contrast, info: EvaluationInfo) -> str:
    """Benchmark and metric as the tables name them."""
    return f"{info.title} {METRIC_TITLE[contrast.metric]}"
