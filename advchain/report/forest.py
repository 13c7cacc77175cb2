"""Forest plots of the paired differences that were declared before the run: one row per comparison and measure, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from advchain.report.contrasts import Contrast, heading
from advchain.report.drift_views import SHOWN, scorer_title
from advchain.report.figures import style_of
from advchain.report.grid import LOWER_IS_BETTER, groups
from advchain.report.plots import INK, STYLE, colour, legend, marker, panels, said
from advchain.report.scorer_views import MEASURE_TITLE, apart
from advchain.report.scorers import DriftContrast
from advchain.report_specs import ReportSpec

ROW = 0.24  # inches
LOWER_DRIFT_IS_BETTER = frozenset({"drift_rate", "drift_hazard"})
Line = tuple[str, str, list["Mark"]]  # comparison, measure, what is drawn


class Mark:
    """One difference in points, turned so that right is better; hollow where it is not established."""

    def __init__(self, value: float, low: float, high: float, lower_is_better: bool, established: bool, index: int) -> None:
        sign = -100 if lower_is_better else 100
        self.value, (self.low, self.high) = sign * value, sorted((sign * low, sign * high))
        self.established, self.index = established, index


def forest(spec: ReportSpec, contrasts: Sequence[Contrast]) -> Figure:
    """Every difference that speaks of a whole table, a panel per model, a block per reference."""
    title = "Paired differences on the same prompts"
    pairs = _pairs(spec)
    lines: dict[str, list[Line]] = {}
    styles = {(row.model, row.method, row.run): style_of(spec)[row.method_title] for row in groups(spec.checkpoints)}  # that of the reference in every figure
    for row in contrasts:
        names = pairs(row.model, row.method, row.run, row.reference, row.reference_run)
        if row.family == "table" and names and row.difference is not None and row.low is not None and row.high is not None:
            mark = Mark(row.difference, row.low, row.high, row.metric in LOWER_IS_BETTER, row.established, styles[row.model, row.reference, row.reference_run])
            lines.setdefault(row.model, []).append((names, f"{heading(row, spec.evaluations).removesuffix(' (all sets)')}, n = {row.num_items}", [mark]))
    if not lines:
        return said(title, "No two methods that are to be compared were run on one model.")
    return _draw(spec, title, lines, [], ("established after correction", "not established"))


def forest_chains(spec: ReportSpec, changes: Sequence[DriftContrast]) -> Figure:
    """The same for what happens inside the chains: a mark per step scorer, so that a difference of the scorer's making is seen as one."""
    title = "Differences inside the chains, by step scorer"
    pairs = _pairs(spec)
    scorers = list(dict.fromkeys(change.scorer for change in changes))
    found: dict[tuple[str, str, str], list[Mark]] = {}
    for change in changes:
        names = pairs(change.model, change.method, change.run, change.reference, change.reference_run)
        if names and change.measure in ("drift_rate", "recovery_rate"):
            mark = Mark(change.difference, change.low, change.high, change.measure in LOWER_DRIFT_IS_BETTER, apart(change), scorers.index(change.scorer))
            measure = f"{SHOWN[change.nature, change.chains]}: {MEASURE_TITLE[change.measure]}"
            found.setdefault((change.model, names, measure), []).append(mark)
    if not found:
        return said(title, "No step judge was run, or no two methods that are to be compared.")
    lines: dict[str, list[Line]] = {}
    for (model, names, measure), marks in found.items():
        lines.setdefault(model, []).append((names, measure, marks))
    handles = [Line2D([], [], ls="none", marker=marker(i), color=colour(i), ms=6, label=scorer_title(spec, scorer)) for i, scorer in enumerate(scorers)]
    return _draw(spec, title, lines, handles, ("interval leaves out 0", "interval holds 0"))


def _pairs(spec: ReportSpec) -> Any:
    """Return a function from (model, method, run, reference, its run) to "AdvChain against STAR-1", "" where the grid does not hold one of them."""
    names = {(row.model, row.method, row.run): row.method_title for row in groups(spec.checkpoints)}

    def title(model: str, method: str, run: str, reference: str, reference_run: str) -> str:
        mine, other = names.get((model, method, run)), names.get((model, reference, reference_run))
        return f"{mine} against {other}" if mine and other else ""

    return title


def _draw(spec: ReportSpec, title: str, lines: Mapping[str, Sequence[Line]], handles: Sequence[Line2D], words: tuple[str, str]) -> Figure:
    titles = {info.model: info.model_title for info in spec.checkpoints}
    tallest = max(len(rows) + len({names for names, _, _ in rows}) for rows in lines.values())
    with matplotlib.rc_context(STYLE):
        figure, axes = panels([titles[model] for model in lines], title, per_row=1, height=ROW * tallest + 0.9, width=7.2)
        for ax, rows in zip(axes, lines.values(), strict=True):
            _panel(ax, rows)
        filled = Line2D([], [], ls="none", marker="o", color=INK, ms=6, label=words[0])
        hollow = Line2D([], [], ls="none", marker="o", color=INK, mfc="none", ms=6, label=words[1])
        legend(figure, [*handles, filled, hollow])
    return figure


def _panel(ax: Any, rows: Sequence[Line]) -> None:
    """Rows from the top; a bold line above each block names the comparison."""
    ticks, labels, drawn, height, block = [], [], [], 0.0, ""
    for names, measure, marks in rows:
        if names != block:
            block = names
            ax.text(-0.02, height, names, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=9, fontweight="bold")
            height -= 1
        for place, mark in enumerate(marks):
            drawn.append((height + 0.16 * ((len(marks) - 1) / 2 - place) * 2, mark))
        ticks.append(height)
        labels.append(measure)
        height -= 1
    _marks(ax, drawn)
    ax.set_yticks(ticks, labels, fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.axvline(0, color=INK, lw=1)
    reach = 1.05 * max(max(abs(mark.low), abs(mark.high)) for _, _, marks in rows for mark in marks) or 1.0
    ax.set(xlim=(-reach, reach), ylim=(height + 0.5, 0.6), xlabel="\u2190 worse        difference in points        better \u2192")


def _marks(ax: Any, drawn: Sequence[tuple[float, Mark]]) -> None:
    """All intervals as one artist, all values with the same marker as another: a large grid has hundreds."""
    tints = [colour(mark.index) for _, mark in drawn]
    ax.hlines([height for height, _ in drawn], [mark.low for _, mark in drawn], [mark.high for _, mark in drawn], colors=tints, lw=1.6, zorder=2)
    for shape in dict.fromkeys(marker(mark.index) for _, mark in drawn):
        mine = [(height, mark, tint) for (height, mark), tint in zip(drawn, tints, strict=True) if marker(mark.index) == shape]
        values, heights = [mark.value for _, mark, _ in mine], [height for height, _, _ in mine]
        faces = [tint if mark.established else "none" for _, mark, tint in mine]
        ax.scatter(values, heights, 6.5**2, marker=shape, edgecolors=[tint for *_, tint in mine], facecolors=faces, linewidths=1.0, zorder=3)
