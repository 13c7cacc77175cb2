"""The figures of the report. Each function returns a figure; where there is nothing to plot it returns a plain sentence instead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from advchain.errors import DataError
from advchain.io import read_jsonl
from advchain.records import Score
from advchain.report.curves import KIND_TITLE, POSITIONS, Curve
from advchain.report.grid import Group, groups
from advchain.report.plots import STYLE, colour, filled, legend, marker, panels, said
from advchain.report.tables import Column, Scores, columns
from advchain.report_specs import CheckpointInfo, ReportSpec


class Mean(NamedTuple):
    """Mean of several rates in per cent with its interval."""

    value: float
    low: float
    high: float

    @property
    def bars(self) -> list[list[float]]:
        """Error bars as matplotlib wants them: distances below and above, shape (2, 1)."""
        return [[max(self.value - self.low, 0.0)], [max(self.high - self.value, 0.0)]]


def mean_rate(scores: Sequence[Score]) -> Mean | None:
    """Average rates of different benchmarks; their errors are independent, so the distances add in squares. None if one is missing."""
    if not scores or any(score.value is None or score.low is None or score.high is None for score in scores):
        return None
    values, lows, highs = (np.array([getattr(score, name) for score in scores], dtype=float) for name in ("value", "low", "high"))
    below, above = math.sqrt(((values - lows) ** 2).sum()) / len(scores), math.sqrt(((highs - values) ** 2).sum()) / len(scores)
    value = float(values.mean())
    return Mean(100 * value, 100 * (value - below), 100 * (value + above))


def measures_of(spec: ReportSpec, table: str, metric: str) -> list[Column]:
    """Return the primary measures of one kind of table with one metric."""
    return [column for column in columns(spec, lambda info: info.table == table) if column.metric == metric]


def mean_of(scores: Scores, group: Group, measures: Sequence[Column]) -> Mean | None:
    """Return the mean of a group over several sets, None where one was not asked or not judged."""
    if not all(group.has(column.evaluation) for column in measures):
        return None
    return mean_rate([scores.get(group, column.evaluation, column.metric, column.judge) for column in measures])


def tradeoff(spec: ReportSpec, scores: Scores) -> Figure:
    """ASR against ORR, one point per checkpoint group: a row of panels per model, plain prompts left and hijacked chains right."""
    heading = "Safety against over-refusal"
    over = measures_of(spec, "over_refusal", "orr")
    kinds = [(title, measures_of(spec, table, "asr")) for table, title in (("safety", "harmful prompts"), ("hijack", "hijacked chains"))]
    kinds = [(title, measures) for title, measures in kinds if measures and over]
    models = {info.model: info.model_title for info in spec.checkpoints}
    shown = [(model, title, measures) for model in models for title, measures in kinds]
    if not shown:
        return said(heading, "No grid with both harmful and benign prompts was run.")
    with matplotlib.rc_context(STYLE):
        figure, axes = panels([f"{models[model]}, {title}" for model, title, _ in shown], heading, per_row=len(kinds))
        for ax, (model, _, measures) in zip(axes, shown, strict=True):
            _tradeoff_panel(ax, spec, scores, model, measures, over)
        _same_limits(axes)
        legend(figure, _tradeoff_legend(spec))
    return figure


def _tradeoff_panel(ax: Any, spec: ReportSpec, scores: Scores, model: str, measures: Sequence[Column], over: Sequence[Column]) -> None:
    for group in (group for group in groups(spec.checkpoints) if group.model == model):
        x, y = mean_of(scores, group, over), mean_of(scores, group, measures)
        if x is None or y is None:
            continue
        ax.errorbar(x.value, y.value, xerr=x.bars, yerr=y.bars, ms=7, elinewidth=1, **_look(style_of(spec)[group.method_title]))
    ax.set_xlabel(_axis("ORR %", over))
    ax.set_ylabel(_axis("ASR %", measures))


def _look(index: int) -> dict[str, Any]:
    """Colour, marker and filling of a method: each can be told by shape alone."""
    return {"color": colour(index), "marker": marker(index), "mfc": colour(index) if filled(index) else "none"}


def _same_limits(axes: Sequence[Any]) -> None:
    """All panels from 0 (a little less, so that points on the axis are whole) to the largest bar of any."""
    right, top = max(ax.get_xlim()[1] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set(xlim=(-0.03 * right, right), ylim=(-0.03 * top, top))


def _axis(metric: str, measures: Sequence[Column]) -> str:
    titles = [column.info.title for column in measures]
    names = titles[0] if len(titles) == 1 else f"mean of {len(titles)} sets"
    return f"{metric}, {names} (lower is better)"


def style_of(spec: ReportSpec) -> dict[str, int]:
    """Number of each method title: the same colour and marker in every figure."""
    return {name: i for i, name in enumerate(dict.fromkeys(group.method_title for group in groups(spec.checkpoints)))}


def _tradeoff_legend(spec: ReportSpec) -> list[Line2D]:
    return [Line2D([], [], linestyle="none", label=name, **_look(i)) for name, i in style_of(spec).items()]


def snowball(curves: Sequence[Curve], scorer: str) -> Figure:
    """Mean step score along the training chains: over the relative position above, around the injected step below."""
    heading = f"Training chains, step scores by {scorer}"
    meaning = {"harmful": "harmful prompts (5 = harmful step)", "benign": "benign prompts (5 = helpful step)"}
    natures = [nature for nature in meaning if any(curve.nature == nature for curve in curves)]
    if not natures:
        return said(heading, "No training data was given.")
    shown = [(axis, nature) for axis in POSITIONS for nature in natures if axis == "relative" or any(curve.axis == axis for curve in curves)]
    with matplotlib.rc_context(STYLE):
        figure, axes = panels([meaning[nature] for _, nature in shown], heading, per_row=len(natures))
        for ax, (axis, nature) in zip(axes, shown, strict=True):
            for curve in (curve for curve in curves if (curve.axis, curve.nature) == (axis, nature)):
                _band(ax, curve)
            place = "relative position in the chain, %" if axis == "relative" else "steps from the injected one"
            ax.set(xlabel=place, ylabel="mean step score, 1 to 5", ylim=(0.9, 5.1), yticks=range(1, 6))
            ax.legend(loc="best", fontsize=9)
    return figure


def _band(ax: Any, curve: Curve) -> None:
    index = list(KIND_TITLE).index(curve.kind)
    positions = POSITIONS[curve.axis] * (100 if curve.axis == "relative" else 1)
    ax.fill_between(positions, curve.low, curve.high, color=colour(index), alpha=0.2, linewidth=0)
    ax.plot(positions, curve.mean, color=colour(index), lw=2, ls=("-", "-", "--")[index], marker=marker(index), ms=4, label=curve.title)


TRAINING_COLUMNS = ("step", "epoch", "loss", "lr", "tokens", "seconds")


def read_training(path: Path) -> list[dict[str, float]]:
    """Read a training log.

    Raises:
        DataError: a row lacks step or loss.
    """
    rows = []
    for number, row in read_jsonl(path):
        if "loss" in row and row["loss"] is None:
            continue  # a step that was left out
        if not all(isinstance(row.get(name), (int, float)) for name in ("step", "loss")):
            raise DataError(f"{path}, line {number}: 'step' and 'loss' must be numbers. Expected a training log with {', '.join(TRAINING_COLUMNS)}.")
        rows.append(row)
    return rows


def training(spec: ReportSpec, logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Training loss over the optimizer steps, a panel per model, a colour per method; seeds share the colour. Keys: model/method/run."""
    heading = "Training loss"
    infos = {f"{info.model}/{info.method}/{info.run}": info for info in spec.checkpoints}
    known = {name: rows for name, rows in logs.items() if rows and name in infos}
    if not known:
        return said(heading, "Nothing was trained.")
    models = list(dict.fromkeys(infos[name].model for name in known))
    titles = {info.model: info.model_title for info in spec.checkpoints}
    with matplotlib.rc_context(STYLE):
        figure, axes = panels([titles[model] for model in models], heading)
        for ax, model in zip(axes, models, strict=True):
            for name in (name for name in known if infos[name].model == model):
                _loss_line(ax, spec, infos[name], known[name])
            ax.set(xlabel="optimizer step", ylabel="loss per supervised token (nats)")
        handles = {handle.get_label(): handle for ax in axes for handle in ax.get_legend_handles_labels()[0]}
        legend(figure, [handles[title] for title in style_of(spec) if title in handles])
    return figure


def _loss_line(ax: Any, spec: ReportSpec, info: CheckpointInfo, rows: Sequence[Mapping[str, float]]) -> None:
    title = next(group.method_title for group in groups(spec.checkpoints) if info in group.members)
    index = style_of(spec)[title]
    style = "-" if filled(index) else "--"
    dots = "." if len(rows) < 20 else ""
    ax.plot([row["step"] for row in rows], [row["loss"] for row in rows], color=colour(index), ls=style, lw=1.4, marker=dots, label=title)
