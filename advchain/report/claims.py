"""What the paper's own numbers of prompts support: AdvChain against every other method it prints, by Fisher's exact test (METHOD 1.5).

The paper prints no n and no intervals; n is inferred from its percentages, and the prompts' pairing is lost, so this is the weaker, unpaired test. Beside
it stands what this run found for the same comparison, paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advchain.report.contrasts import ALPHA, Contrast, show_p
from advchain.report.grid import LOWER_IS_BETTER, METRIC_TITLE, groups
from advchain.report.markup import Table
from advchain.report.paper import PaperKey, PaperNumber
from advchain.report_specs import ReportSpec

OURS = "AdvChain"  # the paper's name of its method
COLUMNS = (
    "model",
    "benchmark",
    "metric",
    "reference",
    "advchain_percent",
    "reference_percent",
    "n",
    "reference_n",
    "difference_points",
    "p",
    "supported",
    "here",
)


def fisher(first: int, num_first: int, second: int, num_second: int) -> float:
    """Return Fisher's exact two-sided p of `first` of `num_first` against `second` of `num_second`.

    >>> round(fisher(14, 150, 22, 150), 2), round(fisher(27, 300, 52, 300), 3)
    (0.21, 0.004)
    """
    both, total = first + second, num_first + num_second
    ways = [math.comb(num_first, k) * math.comb(num_second, both - k) if both - k <= num_second else 0 for k in range(min(both, num_first) + 1)]
    return min(1.0, sum(way for way in ways if way <= ways[first]) / math.comb(total, both))


def claims_table(spec: ReportSpec, paper: Mapping[PaperKey, PaperNumber], contrasts: Sequence[Contrast]) -> Table:
    """Return a row per model, benchmark, metric and method that the paper prints beside AdvChain."""
    raw = [_claim(mine, other, _here(spec, contrasts, mine, other)) for mine, other in _pairs(paper)]
    return Table(
        name="claims",
        title="What the paper's own n supports",
        header=["Model", "Measure", "AdvChain against", "AdvChain % (n)", "Other % (n)", "Difference", "p", "Supported", "Here"],
        rows=[
            [
                *(row["model"], f"{row['benchmark']} {METRIC_TITLE[row['metric']]}", row["reference"]),
                *(_percent(row["advchain_percent"], row["n"]), _percent(row["reference_percent"], row["reference_n"]), f"{row['difference_points']:+.1f}"),
                *("-" if row["p"] is None else show_p(row["p"]), row["supported"], row["here"] or "not run"),
            ]
            for row in raw
        ],
        columns=COLUMNS,
        raw=raw,
        notes=[
            "Fisher's exact test, two-sided, on the printed percentages and inferred n; not adjusted for the number of comparisons. Supported: p below 0.05. "
            "Some p depend on an n that does not fit its column: the notes are under Ours and the paper's.",
            "Here: the paired difference that this run found for the same model, set and methods.",
        ],
        numeric=3,
        num_tail=2,
    )


def _pairs(paper: Mapping[PaperKey, PaperNumber]) -> Iterator[tuple[PaperNumber, PaperNumber]]:
    for number in paper.values():
        mine = paper.get((number.model, OURS, number.benchmark, number.metric))
        if mine is not None and number.method != OURS:
            yield mine, number


def _claim(mine: PaperNumber, other: PaperNumber, here: str) -> dict[str, Any]:
    gap, p, said = round(mine.value - other.value, 2), None, "n unknown"
    if mine.n and other.n:
        p = fisher(round(mine.value * mine.n / 100), mine.n, round(other.value * other.n / 100), other.n)
        better = (gap < 0) == (mine.metric in LOWER_IS_BETTER)
        said = ("yes, AdvChain is better" if better else "yes, AdvChain is worse") if p < ALPHA else "no"
    names = (mine.model, mine.benchmark, mine.metric, other.method, mine.value, other.value, mine.n, other.n)
    return dict(zip(COLUMNS, (*names, gap, None if p is None else float(f"{p:.3g}"), said, here), strict=True))


def _here(spec: ReportSpec, contrasts: Sequence[Contrast], mine: PaperNumber, other: PaperNumber) -> str:
    """What this run found for the same comparison, "" where it was not run."""
    rows = {(row.model, row.method, row.run): row.first for row in groups(spec.checkpoints)}
    for contrast in contrasts:
        info = spec.evaluations.get(contrast.benchmark)
        left, right = (rows.get(key) for key in ((contrast.model, contrast.method, contrast.run), (contrast.model, contrast.reference, contrast.reference_run)))
        if info is None or left is None or right is None:
            continue
        asked = (left.paper_model, left.paper_method, right.paper_method, info.paper, contrast.metric)
        if asked == (mine.model, OURS, other.method, mine.benchmark, mine.metric):
            return contrast.sentence
    return ""


def _percent(value: float, n: int | None) -> str:
    return f"{value:.2f} ({'n unknown' if n is None else n})"
