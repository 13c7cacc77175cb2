"""Rates corrected for the errors of their judge, beside the raw ones (RELIABILITY 7e)."""

from __future__ import annotations

from typing import Any

from advchain.judges.agreement import corrected, effective_n
from advchain.records import Score, derive_seed
from advchain.report.agreement import reference_row, set_title
from advchain.report.grid import groups
from advchain.report.markup import Table
from advchain.report.tables import Column, Scores, columns, found, percent
from advchain.report_specs import ReportSpec

CORRECTED_COLUMNS = ("model", "method", "run", "evaluation", "metric", "judge", "raw_percent", "n", "corrected_percent", "low", "high")


def corrected_table(spec: ReportSpec, scores: Scores) -> Table:
    """Return raw and corrected rate of every primary ASR, RR and ORR."""
    measures = [column for column in columns(spec, lambda info: True) if column.kind in ("harm", "refusal")]
    cells = [(group, column, found(scores, group, column)) for group in groups(spec.checkpoints) for column in measures if group.has(column.evaluation)]
    cells = [cell for cell in cells if cell[2].value is not None]
    references = [reference_row(spec, column.judge, column.kind) for _, column, _ in cells]
    sets = " or ".join(dict.fromkeys(set_title(row["set"]) for row in references if row)) or "no set"
    numbers = [correct(spec, column, score) for _, column, score in cells]
    return Table(
        name="corrected",
        title="Rates corrected for judge errors",
        header=["Model", "Method", "Measure", "Raw %", "Corrected %"],
        rows=[
            [group.first.model_title, group.method_title, column.title, f"{percent(score.value):.1f} ({score.num_total})", _text(number)]
            for (group, column, score), number in zip(cells, numbers, strict=True)
        ],
        columns=CORRECTED_COLUMNS,
        raw=[
            _raw((group.model, group.method, group.run, column.evaluation, column.metric, column.judge), score, number)
            for (group, column, score), number in zip(cells, numbers, strict=True)
        ],
        notes=[
            f"Rogan-Gladen with each judge's sensitivity and false positives on {sets}; the interval carries the error of both samples.",
            "Right only as far as the judge errs here as it did there; other models and prompts may shift it. none: not measured, too weak a judge, "
            "or a raw rate outside its false positives and sensitivity there, so that it errs otherwise here.",
        ]
        if cells
        else [],
        empty="No rate by a judge of harm or refusal.",
        numeric=3,
    )


def correct(spec: ReportSpec, column: Column, score: Score) -> tuple[float, float, float] | None:
    """Return (corrected rate, low, high) of one score, None where its judge was not measured or is too weak."""
    row = reference_row(spec, column.judge, column.kind)
    if row is None or score.value is None or row["sensitivity"] is None or row["fpr"] is None:
        return None
    hit = effective_n(row["sensitivity"], row["sensitivity_low"], row["sensitivity_high"], row["num_positive"])
    alarm = effective_n(row["fpr"], row["fpr_low"], row["fpr_high"], row["n"] - row["num_positive"])
    total = score.num_total if score.low is None or score.high is None else effective_n(score.value, score.low, score.high, score.num_total)
    seed = derive_seed("corrected", score.model, score.method, score.run, score.benchmark, score.metric)
    return corrected(score.value, total, (row["sensitivity"], hit), (row["fpr"], alarm), seed)


def _text(number: tuple[float, float, float] | None) -> str:
    return "none" if number is None else f"{percent(number[0]):.1f} [{percent(number[1]):.1f}, {percent(number[2]):.1f}]"


def _raw(names: tuple[str, ...], score: Score, number: tuple[float, float, float] | None) -> dict[str, Any]:
    values = (percent(score.value), score.num_total, *(percent(part) for part in number or (None, None, None)))
    return dict(zip(CORRECTED_COLUMNS, (*names, *values), strict=True))
