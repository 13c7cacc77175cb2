"""What the report shows of variance.csv: what would make each rate more certain."""

from __future__ import annotations

from collections.abc import Sequence

from advchain.report.grid import METRIC_TITLE, groups
from advchain.report.markup import Table
from advchain.report.variance import VARIANCE_COLUMNS, Variance
from advchain.report_specs import ReportSpec


def variance_table(spec: ReportSpec, rows: Sequence[Variance]) -> Table:
    """Return a row per group with several seeds, set and primary metric."""
    names = {(row.model, row.method, row.run): row for row in groups(spec.checkpoints)}
    return Table(
        name="variance",
        title="Seeds, prompts, decoding: where the error comes from",
        header=[
            "Model",
            "Method",
            "Measure",
            "Seeds",
            "Prompts",
            "Mean %",
            "SD over seeds",
            "SE: seeds",
            "SE: prompts",
            "SE: seed x prompt",
            "SE: decoding",
            "SE",
        ],
        rows=[
            [group.first.model_title, group.method_title]
            + [f"{spec.evaluations[row.benchmark].title} {METRIC_TITLE[row.metric]}", str(row.num_seeds), str(row.num_items)]
            + [_points(number) for number in (row.value, row.sd_over_seeds, row.se_seeds, row.se_prompts, row.se_both, row.se_decoding, row.se_total)]
            for row in rows
            for group in [names[row.model, row.method, row.run]]
        ],
        columns=VARIANCE_COLUMNS,
        raw=[row.model_dump() for row in rows],
        notes=[
            "Points of per cent, items judged under every seed. SE: standard error of the mean over seeds, prompts and samples, and the part of it that each "
            "source makes (parts add in squares): more seeds shrink the first, more prompts the second, more samples per prompt the last.",
            "With one sample per prompt decoding is part of seed x prompt ('-'). The intervals of the other tables draw prompts only.",
        ]
        if rows
        else [],
        empty="Every method was trained with one seed: nothing tells how far another seed would land.",
        numeric=3,
    )


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
