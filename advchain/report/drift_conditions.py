"""The snowball curves with the controls that the paper lacks: all chains, chains by outcome, and the paper's selection beside that of shuffled steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from advchain.report.drift import CurvePoint
from advchain.report.drift_views import SHOWN, by, scorer_title
from advchain.report.grid import Group, groups
from advchain.report.plots import STYLE, colour, legend, outer, panels, said
from advchain.report_specs import ReportSpec

NATURES = ("harmful", "benign")
ASKED = frozenset({"base", "star1", "no_injection", "advchain"})
# condition -> title, place in the palette, line; outcomes are those of the primary judge of harm, or of refusal
LINES = {
    "all": ("all chains", 6, "-"),
    "safe": ("answer safe", 2, "-"),
    "unsafe": ("answer unsafe", 1, "-"),
    "complied": ("answer complies", 2, "-"),
    "refused": ("answer refuses", 1, "-"),
    "selected": ("begins good, ends bad (the paper's selection)", 3, "-"),
    "selected_shuffled": ("the same selection of shuffled steps", 3, "--"),
}


def conditions(spec: ReportSpec, points: Sequence[CurvePoint]) -> Figure:
    """A panel per model, nature of the plain prompts, step scorer and method (`shown_groups`). A curve stands on at least five prompts."""
    heading = "Badness of the steps by outcome, and what selecting makes of it"
    scorers = list(dict.fromkeys(point.scorer for point in points))
    found: dict[tuple[str, str, str, str, str], dict[str, list[CurvePoint]]] = {}
    for point in points:
        if point.chains == "own":
            found.setdefault((point.model, point.nature, point.scorer, point.method, point.run), {}).setdefault(point.condition, []).append(point)
    models = dict.fromkeys(info.model for info in spec.checkpoints)
    places = [(group, nature, scorer) for model in models for nature in NATURES for scorer in scorers for group in shown_groups(spec, model)]
    shown = [(group, nature, scorer) for group, nature, scorer in places if (group.model, nature, scorer, group.method, group.run) in found]
    if not shown:
        return said(heading, "No step judge was run, or no checkpoint writes chains of its own.")
    per_row = max(Counter((group.model, nature, scorer) for group, nature, scorer in shown).values())
    titles = [_title(spec, *place, scorers) for place in shown]
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(titles, by(spec, heading, scorers), per_row, height=2.4 + 0.2 * (len(scorers) > 1), width=3.0)
        for ax, (group, nature, scorer) in zip(axes, shown, strict=True):
            mine = found[group.model, nature, scorer, group.method, group.run]
            for condition in LINES:
                _line(ax, mine.get(condition, []), condition)
            ax.set(xlabel="position in the chain, %", ylabel="mean badness, 1 to 5", ylim=(0.9, 5.1), yticks=range(1, 6), xticks=(0, 50, 100))
            ax.title.set_fontsize(9)
        outer(axes, per_row)
        handles = {handle.get_label(): handle for ax in axes for handle in ax.get_legend_handles_labels()[0]}
        legend(figure, [handles[title] for title, *_ in LINES.values() if title in handles])
    return figure


def _title(spec: ReportSpec, group: Group, nature: str, scorer: str, scorers: Sequence[str]) -> str:
    lines = [group.first.model_title, f"{group.method_title}, {SHOWN[nature, 'own']}"]
    return "\n".join([*lines, f"by {scorer_title(spec, scorer)}"] if len(scorers) > 1 else lines)


def shown_groups(spec: ReportSpec, model: str) -> list[Group]:
    """Of each model the four that the question is about, where the grid has them, else those it lists first; the CSV has all."""
    mine = [group for group in groups(spec.checkpoints) if group.model == model]
    chosen = sorted(mine, key=lambda group: group.method not in ASKED)[:4]
    return [group for group in mine if group in chosen]


def _line(ax: Any, points: Sequence[CurvePoint], condition: str) -> None:
    if points:
        title, index, style = LINES[condition]
        places = [100 * point.position for point in points]
        ax.fill_between(places, [point.low for point in points], [point.high for point in points], color=colour(index), alpha=0.12, linewidth=0)
        ax.plot(places, [point.mean for point in points], color=colour(index), ls=style, lw=1.8, label=title)
