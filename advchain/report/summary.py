"""summary.md: one compact table and where to look, for the terminal and for a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from advchain.report.contrasts import Contrast, heading
from advchain.report.figures import mean_rate, measures_of
from advchain.report.grid import METRIC_TITLE, Group, groups
from advchain.report.html import lead, warnings
from advchain.report.markup import Table, markdown_grid
from advchain.report.provenance import Manifest
from advchain.report.tables import Column, Scores, found
from advchain.report_specs import ReportSpec

PLACES = (
    ("report.html", "everything on one page"),
    ("tables/", "each table as CSV, Markdown, LaTeX and HTML"),
    ("figures/", "SVG, PNG and PDF"),
    ("scores.csv", "every rate with its interval and counts"),
    ("contrasts.csv", "paired differences"),
    ("verdicts/", "what each judge said of each response"),
)
SHOWN = (("safety", "asr"), ("hijack", "asr"), ("safety", "rr"), ("over_refusal", "orr"), ("reasoning", "pass@1"))


def summary(spec: ReportSpec, scores: Scores, contrasts: Sequence[Contrast], manifests: Sequence[Manifest]) -> str:
    """Return the summary as Markdown that reads well as plain text."""
    told = [f"- {_told(spec, contrast)}" for contrast in contrasts if contrast.established]
    doubtful = [f"Note: {text}" for text in warnings(spec)]
    parts = [
        f"# {spec.name}",
        lead(spec, manifests),
        markdown_grid(compact(spec, scores)).rstrip(),
        "Per cent, mean over the sets of a kind, with 95 % interval. ASR, ORR: lower is better; RR, pass@1: higher.",
        *doubtful,
        _established(len(told), len(contrasts)),
        "\n".join(told),
        "Where to look:",
        "\n".join(f"- {place}: {what}" for place, what in PLACES),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _established(num_told: int, num_contrasts: int) -> str:
    if not num_contrasts:
        return "No two methods that are to be compared were run on one model."
    if not num_told:
        return f"None of {num_contrasts} paired differences is established after correction for their number (tables/contrasts.md)."
    return f"Paired differences established after correction for their number ({num_told} of {num_contrasts}):"


def compact(spec: ReportSpec, scores: Scores) -> Table:
    """Return one row per model and method, one column per kind of measure."""
    kinds = [(table, metric, measures_of(spec, table, metric)) for table, metric in SHOWN]
    kinds = [kind for kind in kinds if kind[2]]
    rows = [[row.first.model_title, row.method_title, *(_cell(scores, row, measures) for *_, measures in kinds)] for row in groups(spec.checkpoints)]
    titles = [f"{table.replace('_', '-')} {METRIC_TITLE[metric]}" for table, metric, _ in kinds]
    return Table("summary", spec.name, ["Model", "Method", *titles], rows, (), ())


def _cell(scores: Scores, row: Group, measures: Sequence[Column]) -> str:
    mean = mean_rate([found(scores, row, column) for column in measures if row.has(column.evaluation)])
    return "-" if mean is None else f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]"


def _told(spec: ReportSpec, contrast: Contrast) -> str:
    names = {(row.model, row.method, row.run): row for row in groups(spec.checkpoints)}
    mine, other = names[contrast.model, contrast.method, contrast.run], names[contrast.model, contrast.reference, contrast.reference_run]
    who = f"{mine.first.model_title}, {mine.method_title} against {other.method_title}"
    return f"{who}, {heading(contrast, spec.evaluations)}: {contrast.sentence}"
