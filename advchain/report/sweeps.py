"""One thing varied, all else equal: T-C share, size of the training set, learning rate, against ASR, ASR of hijacked chains, and ORR."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from advchain.report.figures import mean_of, measures_of
from advchain.report.grid import Group, groups
from advchain.report.plots import STYLE, colour, legend, marker, panels, said
from advchain.report.tables import Column, Scores, ratio_rows, tc_share
from advchain.report_specs import ReportSpec

LINES = (("ASR, harmful prompts", "safety", "asr", "-"), ("ASR, hijacked chains", "hijack", "asr", "-."), ("ORR, benign prompts", "over_refusal", "orr", "--"))


class Sweep(NamedTuple):
    """One panel: its title, and the groups by what was varied."""

    title: str
    points: dict[float, Group]


def num_rows(group: Group) -> int:
    """Training rows of a recipe of injected samples, 0 where unknown."""
    return (group.first.num_tc or 0) + (group.first.num_hc or 0)


def ratio_sweeps(spec: ReportSpec) -> list[Sweep]:
    """A panel per model: the T-C shares at that size and learning rate of the training set for which most shares were run."""
    return _sweeps(ratio_rows(spec), lambda row: 100 * tc_share(row), lambda row: (num_rows(row), row.learning_rate))


def size_sweeps(spec: ReportSpec) -> list[Sweep]:
    """A panel per model: the sizes at that T-C share and learning rate for which most sizes were run."""
    rows = [row for row in groups(spec.checkpoints) if num_rows(row)]
    return _sweeps(rows, num_rows, lambda row: (round(tc_share(row), 3), row.learning_rate))


def rate_sweeps(spec: ReportSpec) -> list[Sweep]:
    """A panel per model and method that was trained at several learning rates."""
    found: dict[tuple[str, str], dict[float, Group]] = {}
    for row in groups(spec.checkpoints):
        if row.learning_rate is not None:
            found.setdefault((row.first.model_title, row.first.method_title), {})[row.learning_rate] = row
    return [Sweep(f"{model}, {method}", points) for (model, method), points in found.items() if len(points) > 1]


def _sweeps(rows: Sequence[Group], varied: Callable[[Group], float], fixed: Callable[[Group], object]) -> list[Sweep]:
    """Of each model the groups that share `fixed` and differ most often in `varied`; of several at one point AdvChain itself, else the first."""
    found = []
    for model in dict.fromkeys(row.model for row in rows):
        mine = sorted((row for row in rows if row.model == model), key=lambda row: row.method != "advchain")
        counts = Counter(setting for setting, _ in {(fixed(row), varied(row)) for row in mine})
        setting, number = max(counts.items(), key=lambda entry: entry[1])
        if number > 1:
            points: dict[float, Group] = {}
            for row in mine:
                if fixed(row) == setting:
                    points.setdefault(varied(row), row)
            found.append(Sweep(mine[0].first.model_title, dict(sorted(points.items()))))
    return found


def ratio(spec: ReportSpec, scores: Scores) -> Figure:
    """The paper's ratio ablation, with bands."""
    text = "No two recipes of one model differ in their T-C share alone."
    return _figure(spec, scores, ratio_sweeps(spec), "T-C share against ASR and ORR", "T-C share of the injected samples, %", text)


def size(spec: ReportSpec, scores: Scores) -> Figure:
    """How many training rows are enough?"""
    return _figure(
        spec, scores, size_sweeps(spec), "Training rows against ASR and ORR", "training rows", "No two training sets of one model differ in size alone."
    )


def rate(spec: ReportSpec, scores: Scores) -> Figure:
    """Is the gain the method's or the learning rate's?"""
    text = "No method was trained at several learning rates."
    return _figure(spec, scores, rate_sweeps(spec), "Learning rate against ASR and ORR", "learning rate", text, log=True)


def _figure(spec: ReportSpec, scores: Scores, sweeps: Sequence[Sweep], heading: str, label: str, nothing: str, log: bool = False) -> Figure:
    lines = [(title, measures_of(spec, table, metric), style) for title, table, metric, style in LINES]
    lines = [line for line in lines if line[1]]
    if not sweeps or not lines:
        return said(heading, nothing)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels([sweep.title for sweep in sweeps], heading)
        for ax, sweep in zip(axes, sweeps, strict=True):
            for index, (title, measures, style) in enumerate(lines):
                _line(ax, scores, sweep, measures, index, style, title)
            if log:
                ax.set_xscale("log")
                ax.set_xticks(sorted(sweep.points))
                ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set(xlabel=label, ylabel="mean rate over the sets, %")
            ax.set_ylim(bottom=0)
        legend(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def _line(ax: Any, scores: Scores, sweep: Sweep, measures: Sequence[Column], index: int, style: str, title: str) -> None:
    found = [(x, mean_of(scores, group, measures)) for x, group in sorted(sweep.points.items())]
    known = [(x, mean) for x, mean in found if mean is not None]
    if known:
        places, means = [x for x, _ in known], [mean for _, mean in known]
        ax.fill_between(places, [mean.low for mean in means], [mean.high for mean in means], color=colour(index), alpha=0.15, linewidth=0)
        ax.plot(places, [mean.value for mean in means], color=colour(index), ls=style, lw=1.8, marker=marker(index), ms=5, label=title)
