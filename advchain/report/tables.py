"""scores.csv -> the paper's four tables, and the ratio, judge and health tables. Rates become per cent here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from advchain.errors import DataError
from advchain.records import Score
from advchain.report.agreement import agreement_note
from advchain.report.grid import METRIC_TITLE, Group, asked, groups, judges_of
from advchain.report.links import responses
from advchain.report.markup import Table, read_csv
from advchain.report_specs import EvaluationInfo, ReportSpec, TableName

TITLES: dict[TableName, str] = {
    "safety": "Safety on harmful prompts",
    "hijack": "Hijacked chains of thought",
    "attacks": "Further attacks and protocols",
    "over_refusal": "Over-refusal on benign prompts",
    "reasoning": "Reasoning",
}
STRING_MATCHES = frozenset({"string_match", "refusal_phrases"})  # modules that look for phrases: they do not read what the answer does
MAX_TRUNCATED = 0.05  # RELIABILITY G5
MAX_EXCLUDED = 0.02  # RELIABILITY 7f
MARKS = "† more than 5 % of the responses were cut at the token limit. ‡ more than 2 % of the responses could not be judged."


class Scores:
    """scores.csv by (model, method, run, evaluation, metric, judge)."""

    def __init__(self, rows: Sequence[Score]) -> None:
        self.rows = {(row.model, row.method, row.run, row.benchmark, row.metric, row.judge): row for row in rows}

    def get(self, group: Group, evaluation: str, metric: str, judge: str = "", run: str | None = None) -> Score:
        """Return one score of a group (or of one of its runs).

        Raises:
            DataError: scores.csv does not hold it.
        """
        key = (group.model, group.method, run or group.run, evaluation, metric, judge)
        if key not in self.rows:
            raise DataError(f"scores.csv has no row for {' / '.join(part for part in key if part)}. Make the scores again with the present config.")
        return self.rows[key]


def read_scores(path: Path) -> Scores:
    """Read scores.csv.

    Raises:
        DataError: a row does not fit; names line and column.
    """
    rows = []
    for number, row in enumerate(read_csv(path), start=2):
        try:
            rows.append(Score.model_validate({name: None if text == "" and name in ("value", "low", "high") else text for name, text in row.items()}))
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(f"{path}, line {number}, column '{first['loc'][0]}': {first['msg']}. Make the scores again.") from None
    return Scores(rows)


def percent(value: float | None) -> float | None:
    """0.0451 -> 4.51: the one rounding of a rate, so that every form of a table shows the same number."""
    return None if value is None else round(100 * value, 2)


def cell_text(score: Score, marks: str = "") -> str:
    """Return "4.5 [2.4, 8.3] (200)", or "none judged (0)"."""
    if score.value is None:
        return f"none judged ({score.num_total}){marks}"
    bounds = "" if score.low is None or score.high is None else f" [{percent(score.low):.1f}, {percent(score.high):.1f}]"
    return f"{percent(score.value):.1f}{bounds} ({score.num_total}){marks}"


def judge_note(spec: ReportSpec, judge: str, kind: str) -> str:
    """Return the judge's title, with a warning where a phrase match stands in for a judge of harm."""
    title = spec.judge_titles.get(judge, judge)
    if kind == "harm" and spec.judge_modules.get(judge, judge) in STRING_MATCHES:
        title += ", a string match: not a harm judgement"
    return title + agreement_note(spec, judge, kind)


@dataclass(frozen=True)
class Column:
    """One primary measure of one evaluation."""

    evaluation: str
    info: EvaluationInfo
    judge: str
    kind: str
    metric: str

    @property
    def title(self) -> str:
        """Benchmark and metric."""
        return f"{self.info.title} {METRIC_TITLE[self.metric]}"

    @property
    def stem(self) -> str:
        """Beginning of its CSV columns."""
        return f"{self.evaluation}_{self.metric}"


def columns(spec: ReportSpec, keep: Callable[[EvaluationInfo], bool]) -> list[Column]:
    """Return the primary measures of the evaluations that `keep` accepts, in the order of the spec."""
    return [
        Column(name, info, judge, kind, metric)
        for name, info in spec.evaluations.items()
        if keep(info)
        for judge, kind, metric, primary in judges_of(info)
        if primary and kind != "steps"
    ]


def main_table(spec: ReportSpec, scores: Scores, name: TableName) -> Table:
    """Return one of the paper's four tables: a row per model and method, a column per benchmark and metric."""
    measures = columns(spec, lambda info: info.table == name)
    rows = [row for row in groups(spec.checkpoints) if any(row.has(column.evaluation) for column in measures)]
    keys = ["model", "method", "run", "seeds", "learning_rate"]
    return Table(
        name=name,
        title=TITLES[name],
        header=["Model", "Method", *(f"{column.title} %" for column in measures), "Seeds"],
        rows=[[row.first.model_title, row.method_title, *(_readable(scores, row, column) for column in measures), row.seeds] for row in rows],
        columns=keys + [f"{column.stem}_{part}" for column in measures for part in PARTS],
        raw=[_keys(row) | {key: number for column in measures for key, number in _raw(scores, row, column).items()} for row in rows],
        notes=_notes(spec, scores, rows, measures),
        empty="No benchmark of this kind was run.",
        num_tail=1,
        addresses={
            (number, 2 + place): responses(row, column.evaluation, column.kind)
            for number, row in enumerate(rows)
            for place, column in enumerate(measures)
            if row.has(column.evaluation) and found(scores, row, column).num_total
        },
    )


def found(scores: Scores, group: Group, column: Column) -> Score:
    """Return the score of a group in one column."""
    return scores.get(group, column.evaluation, column.metric, column.judge)


PARTS = ("percent", "low", "high", "k", "n", "excluded", "sd_over_seeds")


def _keys(group: Group) -> dict[str, Any]:
    return {"model": group.model, "method": group.method, "run": group.run, "seeds": group.seeds, "learning_rate": group.learning_rate}


def _readable(scores: Scores, group: Group, column: Column) -> str:
    if not group.has(column.evaluation):
        return "-"
    score = found(scores, group, column)
    return cell_text(score, marks(scores, group, column.evaluation, score))


def marks(scores: Scores, group: Group, evaluation: str, score: Score) -> str:
    """Return the marks of a cell whose number should not be trusted at face value."""
    cut = scores.get(group, evaluation, "truncated_rate").value or 0.0
    asked = score.num_total + score.num_excluded
    signs = ("†" if cut > MAX_TRUNCATED else "") + ("‡" if asked and score.num_excluded / asked > MAX_EXCLUDED else "")
    return f" {signs}" if signs else ""


def _raw(scores: Scores, group: Group, column: Column) -> dict[str, Any]:
    if not group.has(column.evaluation):
        return {}
    score = found(scores, group, column)
    numbers = (percent(score.value), percent(score.low), percent(score.high), score.num_positive, score.num_total, score.num_excluded)
    return dict(zip((f"{column.stem}_{part}" for part in PARTS), (*numbers, _spread(scores, group, column)), strict=True))


def _spread(scores: Scores, group: Group, column: Column) -> float | None:
    """Standard deviation over the seeds' own values, in points; None with one seed."""
    members = [member for member in group.members if asked(member, column.evaluation)]
    values = [scores.get(group, column.evaluation, column.metric, column.judge, run=member.run).value for member in members]
    known = [value for value in values if value is not None]
    return percent(float(np.std(known, ddof=1))) if len(known) > 1 else None


def _notes(spec: ReportSpec, scores: Scores, rows: Sequence[Group], measures: Sequence[Column]) -> list[str]:
    if not rows:
        return []
    notes = [f"{', '.join(titles)}: judged by {judge}." for judge, titles in _by_judge(spec, measures).items()]
    cells = [(row, column, found(scores, row, column)) for row in rows for column in measures if row.has(column.evaluation)]
    totals = {column.title: sum(score.num_excluded for _, other, score in cells if other == column) for column in measures}
    excluded = ", ".join(f"{title} {total}" for title, total in totals.items() if total) or "none"
    notes.append(f"Excluded (no answer, judge refused, or verdict not readable): {excluded}.")
    notes.append("Per cent, with 95 % interval and the number of judged responses.")
    if any(len(row.members) > 1 for row in rows):
        notes.append("Several seeds: mean over all their responses, interval over prompts; the spread between seeds is in the CSV (sd_over_seeds).")
    if any(marks(scores, row, column.evaluation, score) for row, column, score in cells):
        notes.append(MARKS)
    return notes


def _by_judge(spec: ReportSpec, measures: Sequence[Column]) -> dict[str, list[str]]:
    judges: dict[str, list[str]] = {}
    for column in measures:
        titles = judges.setdefault(judge_note(spec, column.judge, column.kind), [])
        if METRIC_TITLE[column.metric] not in titles:
            titles.append(METRIC_TITLE[column.metric])
    return judges


HEALTH = ("closed", "truncated", "stopped_open")
RATES = tuple(f"{name}_{part}" for name in HEALTH for part in ("percent", "low", "high"))


def health_table(spec: ReportSpec, scores: Scores) -> Table:
    """Return the rates of closed, truncated and never closed chains and lengths per checkpoint and evaluation: is there an answer to judge at all?"""
    rows = [(group, name, info) for group in groups(spec.checkpoints) for name, info in spec.evaluations.items() if group.has(name)]
    metrics = (*(f"{name}_rate" for name in HEALTH), "mean_tokens", "mean_thinking_words")
    cells = [[scores.get(group, name, metric) for metric in metrics] for group, name, _ in rows]
    return Table(
        name="health",
        title="Health of the responses",
        header=["Model", "Method", "Evaluation", "Closed %", "Truncated %", "Stopped open %", "Tokens", "Thinking words"],
        rows=[[g.first.model_title, g.method_title, info.title, *_health(c)] for (g, _, info), c in zip(rows, cells, strict=True)],
        columns=["model", "method", "run", "evaluation", *RATES, "mean_tokens", "mean_thinking_words", "n"],
        raw=[
            {"model": g.model, "method": g.method, "run": g.run, "evaluation": name, "n": c[0].num_total}
            | dict(zip(RATES, (percent(number) for cell in c[:-2] for number in (cell.value, cell.low, cell.high)), strict=True))
            | {"mean_tokens": _tenth(c[-2].value), "mean_thinking_words": _tenth(c[-1].value)}
            for (g, name, _), c in zip(rows, cells, strict=True)
        ],
        notes=[
            "Closed: the chain ends with </think>, so there is an answer. A model that was not trained to think has no chain to close.",
            "Truncated: the token limit was reached. Tokens and thinking words are means per response; a forced prefix counts as thinking.",
            "Stopped open: the model ended by itself inside its chain, perhaps with an answer that no </think> precedes; a higher limit would not help.",
        ],
        empty="No checkpoint was evaluated.",
        numeric=3,
    )


def _tenth(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _health(cells: Sequence[Score]) -> list[str]:
    rates = [cell_text(cell) for cell in cells[:-2]]
    return rates + ["-" if cell.value is None else f"{_tenth(cell.value):.1f}" for cell in cells[-2:]]


def ratio_rows(spec: ReportSpec) -> list[Group]:
    """Return the groups trained on recipes with known T-C and H-C counts, for models where the T-C share differs, by share."""
    known = [row for row in groups(spec.checkpoints) if row.first.num_tc is not None and row.first.num_hc is not None and not math.isnan(tc_share(row))]
    shares: dict[str, set[float]] = {}
    for row in known:
        shares.setdefault(row.model, set()).add(tc_share(row))
    order = list(shares)
    return sorted((row for row in known if len(shares[row.model]) > 1), key=lambda row: (order.index(row.model), tc_share(row)))


def tc_share(group: Group) -> float:
    """T-C / (T-C + H-C); nan for a recipe without injected samples."""
    tc, hc = group.first.num_tc or 0, group.first.num_hc or 0
    return tc / (tc + hc) if tc + hc else math.nan


def ratio_table(spec: ReportSpec, scores: Scores) -> Table:
    """Return ASR and ORR against the share of temptation-correction samples (the paper's ratio ablation)."""
    rows = ratio_rows(spec)
    measures = [column for column in columns(spec, lambda info: info.table != "reasoning") if column.metric in ("asr", "orr")]
    recipes = ({"num_tc": row.first.num_tc, "num_hc": row.first.num_hc, "tc_percent": percent(tc_share(row))} for row in rows)
    shares: list[Mapping[str, Any]] = [_keys(row) | recipe for row, recipe in zip(rows, recipes, strict=True)]
    return Table(
        name="ratio",
        title="T-C share against ASR and ORR",
        header=["Model", "Method", "T-C : H-C", "T-C share %", *(f"{column.title} %" for column in measures)],
        rows=[
            [row.first.model_title, row.method_title, f"{row.first.num_tc} : {row.first.num_hc}", f"{percent(tc_share(row)):.0f}"]
            + [_readable(scores, row, column) for column in measures]
            for row in rows
        ],
        columns=["model", "method", "run", "seeds", "learning_rate", "num_tc", "num_hc", "tc_percent"]
        + [f"{column.stem}_{part}" for column in measures for part in PARTS],
        raw=[{**share, **{k: v for column in measures for k, v in _raw(scores, row, column).items()}} for share, row in zip(shares, rows, strict=True)],
        notes=_notes(spec, scores, rows, measures),
        empty="No two recipes of one model differ in their T-C share: there is no ratio to plot.",
        addresses={
            (number, 4 + place): responses(row, column.evaluation, column.kind)
            for number, row in enumerate(rows)
            for place, column in enumerate(measures)
            if row.has(column.evaluation) and found(scores, row, column).num_total
        },
        numeric=2,
    )
