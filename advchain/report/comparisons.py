"""Tables that set two numbers side by side: ours and the paper's, two methods on the same items, two judges on the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advchain.errors import DataError
from advchain.records import Score
from advchain.report.contrasts import CONTRAST_COLUMNS, Contrast, heading
from advchain.report.grid import METRIC_TITLE, Group, groups, judges_of
from advchain.report.markup import Table, read_csv
from advchain.report.paper import PaperKey, PaperNumber, difference
from advchain.report.tables import Column, Scores, cell_text, columns, judge_note, percent
from advchain.report_specs import ReportSpec

PAPER_COLUMNS = (
    *("model", "method", "run", "benchmark", "metric", "judge", "ours_percent", "ours_low", "ours_high", "ours_k", "ours_n"),
    *("paper_percent", "paper_n_inferred", "difference_points", "difference_low", "difference_high", "note"),
)
JUDGE_COLUMNS = ("model", "method", "run", "evaluation", "metric", "judge", "percent", "low", "high", "k", "n", "excluded")


def read_contrasts(path: Path) -> list[Contrast]:
    """Read contrasts.csv.

    Raises:
        DataError: a row does not fit; names line and column.
    """
    found = []
    for number, row in enumerate(read_csv(path), start=2):
        try:
            found.append(Contrast.model_validate({name: None if text == "" else text for name, text in row.items()}))
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(f"{path}, line {number}, column '{first['loc'][0]}': {first['msg']}. Make the scores again.") from None
    return found


def contrasts_table(spec: ReportSpec, contrasts: Sequence[Contrast]) -> Table:
    """Return the paired differences in words, in the order of the spec."""
    names = {(row.model, row.method, row.run): row for row in groups(spec.checkpoints)}
    shown = [(row, names[row.model, row.method, row.run], names[row.model, row.reference, row.reference_run]) for row in contrasts]
    return Table(
        name="contrasts",
        title="Paired differences on the same prompts",
        header=["Comparison", "Measure", "Finding"],
        rows=[[f"{a.method_title} against {b.method_title}, {a.first.model_title}", heading(row, spec.evaluations), row.sentence] for row, a, b in shown],
        columns=list(CONTRAST_COLUMNS),
        raw=[row.model_dump() for row in contrasts],
        notes=[
            "Points of per cent, method minus reference, 95 % bootstrap interval over prompts; p by exact McNemar (several samples per prompt: "
            "permutation within prompts), adjusted after Holm over the rows that say what a table says as a whole and, apart, over the single sets.",
            "Established: the interval leaves out 0 and the adjusted p is below 0.05. Prompts that either side left unjudged are out of the pair "
            "(num_unpaired in the CSV). The interval carries no variance between training seeds.",
        ]
        if contrasts
        else [],
        empty="No two methods that are to be compared were run on one model.",
        numeric=3,
    )


def paper_table(spec: ReportSpec, scores: Scores, paper: Mapping[PaperKey, PaperNumber]) -> Table:
    """Return ours / paper / difference for every cell that the paper printed and this grid measured."""
    cells = list(_paper_cells(spec, scores, paper))
    notes = [
        "Difference: ours minus the paper's, in points, 95 % interval from both (Newcombe); the paper prints no n, it is inferred from its percentages. "
        "Where n is unknown the paper's number is taken as exact.",
        f"Judges here: {_judges(spec, cells)}. The paper: ASR by Llama Guard 3, RR and ORR by refusal keywords.",
    ]
    return Table(
        name="paper",
        title="Ours and the paper's",
        header=["Model", "Method", "Measure", "Ours %", "Paper % (n)", "Difference", "Note"],
        rows=[_paper_row(*cell) for cell in cells],
        columns=PAPER_COLUMNS,
        raw=[_paper_raw(*cell) for cell in cells],
        notes=notes if cells else [],
        empty="No model of the paper was run here, so there is nothing to set beside its numbers.",
        numeric=3,
        num_tail=1,
    )


PaperCell = tuple[Group, Column, Score, PaperNumber]


def _paper_cells(spec: ReportSpec, scores: Scores, paper: Mapping[PaperKey, PaperNumber]) -> Iterator[PaperCell]:
    for group in groups(spec.checkpoints):
        for column in columns(spec, lambda info: info.paper is not None):
            key = (group.first.paper_model or "", group.first.paper_method or "", column.info.paper or "", column.metric)
            if key in paper and group.has(column.evaluation):
                yield group, column, scores.get(group, column.evaluation, column.metric, column.judge), paper[key]


def _judges(spec: ReportSpec, cells: Sequence[PaperCell]) -> str:
    return "; ".join(sorted({f"{METRIC_TITLE[column.metric]} by {judge_note(spec, column.judge, column.kind)}" for _, column, _, _ in cells}))


def _paper_row(group: Group, column: Column, score: Score, number: PaperNumber) -> list[str]:
    n = "n unknown" if number.n is None else str(number.n)
    names = [group.first.model_title, group.method_title, column.title]
    return [*names, cell_text(score), f"{number.value:.2f} ({n})", _difference_text(score, number), number.note]


def _difference_text(score: Score, number: PaperNumber) -> str:
    if score.value is None:
        return "-"
    gap = difference(score.value, score.low, score.high, number)
    return f"{gap.value:+.1f}" if gap.low is None else f"{gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"


def _paper_raw(group: Group, column: Column, score: Score, number: PaperNumber) -> dict[str, Any]:
    gap = None if score.value is None else difference(score.value, score.low, score.high, number)
    names = (group.model, group.method, group.run, column.evaluation, column.metric, column.judge)
    ours = (percent(score.value), percent(score.low), percent(score.high), score.num_positive, score.num_total)
    bounds = (None, None, None) if gap is None else tuple(None if x is None else round(x, 2) for x in gap)
    return dict(zip(PAPER_COLUMNS, (*names, *ours, number.value, number.n, *bounds, number.note), strict=True))


def judges_table(spec: ReportSpec, scores: Scores) -> Table:
    """Return every judge's number where an evaluation has several of one kind or a step judge, and how far they agree."""
    asked = [(group, name) for group in groups(spec.checkpoints) for name in spec.evaluations if group.has(name)]
    found = [(group, name, scores.get(group, name, metric, judge)) for group, name in asked for metric, judge in _measures(spec, name)]
    return Table(
        name="judges",
        title="All judges",
        header=["Model", "Method", "Evaluation", "Judge", "Metric", "Value"],
        rows=[
            [g.first.model_title, g.method_title, spec.evaluations[name].title, _judge_title(spec, row.judge), row.metric, _value(row)]
            for g, name, row in found
        ],
        columns=JUDGE_COLUMNS,
        raw=[dict(zip(JUDGE_COLUMNS, (g.model, g.method, g.run, name, row.metric, row.judge, *_numbers(row)), strict=True)) for g, name, row in found],
        notes=[
            "Agreement: share of equal labels where both judges gave one; kappa: agreement beyond chance (no per cent).",
            "The responses on which two judges differ, by id: disagreements.csv.",
        ]
        if found
        else [],
        empty="Every measure has one judge: there is nothing to compare.",
        numeric=5,
    )


def _measures(spec: ReportSpec, evaluation: str) -> Iterator[tuple[str, str]]:
    """(metric, judge) of the judges whose kind occurs twice, of their agreement, and of step judges."""
    info = spec.evaluations[evaluation]
    kinds: list[str] = list(info.judges.values())
    for judge, kind, metric, _ in judges_of(info):
        if kind == "steps":
            yield from ((name, judge) for name in (metric, "drift_rate", "recovery_rate"))
        elif kinds.count(kind) > 1:
            yield metric, judge
    names = [(judge, kind) for judge, kind in info.judges.items() if kind != "steps"]
    pairs = [f"{a}|{b}" for i, (a, kind) in enumerate(names) for b, other in names[i + 1 :] if kind == other]
    yield from ((metric, pair) for pair in pairs for metric in ("agreement", "kappa"))


def _judge_title(spec: ReportSpec, judge: str) -> str:
    return " and ".join(spec.judge_titles.get(name, name) for name in judge.split("|"))


UNSCALED = frozenset({"kappa", "mean_step_score"})


def _value(score: Score) -> str:
    if score.metric not in UNSCALED:
        return cell_text(score)
    return "-" if score.value is None else f"{score.value:.2f} ({score.num_total})"


def _numbers(score: Score) -> tuple[Any, ...]:
    plain = score.metric in UNSCALED
    bounds = ((None if x is None else round(x, 4)) if plain else percent(x) for x in (score.value, score.low, score.high))
    return (*bounds, score.num_positive, score.num_total, score.num_excluded)
