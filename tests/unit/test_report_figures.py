"""What the figures plot is what the CSV files say: every mark, line and band, read back from the drawing."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from report_grid import ROOT, checkpoint, report_spec, score_spec

from advchain.report.build import FIGURES, Evidence, draw, read
from advchain.report.drift_conditions import shown_groups
from advchain.report.paper import load_paper
from advchain.report_specs import ReportSpec

Bounds = tuple[float, float, float]  # value, low, high


@pytest.fixture(scope="module")
def evidence(report: Path) -> Evidence:
    spec = ReportSpec.model_validate(json.loads((report / "report.manifest.json").read_text())["spec"])
    paper, root = load_paper(ROOT / "config/paper_numbers.yaml"), report.parent
    return read(report, spec, report / "scores.csv", paper, [root / "advchain.jsonl"], {"r1/advchain/seed0": root / "training.jsonl"}, [])


def rows(path: Path, **wanted: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[name] == value for name, value in wanted.items())]


def bounds(found: Iterable[dict[str, str]], value: str, scale: float = 1) -> set[Bounds]:
    return {rounded(*(scale * float(row[name]) for name in (value, "low", "high"))) for row in found if row[value] != ""}


def rounded(*numbers: float) -> Any:
    return tuple(round(float(number), 6) + 0.0 for number in numbers)


def error_bars(figure: Figure, axis: int) -> set[Bounds]:
    """Value and ends of the bars along an axis (0: x) of every mark."""
    found = set()
    for container in (container for ax in figure.axes for container in ax.containers):
        line, _, bars = container.lines
        segment = next(np.array(bar.get_segments()[0])[:, axis] for bar in bars if np.ptp(np.array(bar.get_segments()[0])[:, 1 - axis]) == 0)
        found.add(rounded(float(np.ravel((line.get_xdata(), line.get_ydata())[axis])[0]), segment.min(), segment.max()))
    return found


def curves(figure: Figure) -> set[tuple[Bounds, ...]]:
    """Every line with its band: (mean, low, high) from left to right."""
    found = set()
    for ax in figure.axes:
        assert len(ax.lines) == len(ax.collections)
        for line, band in zip(ax.lines, ax.collections, strict=True):
            means = np.asarray(line.get_ydata(), dtype=float)
            border = {}
            for x, y in band.get_paths()[0].vertices:
                border.setdefault(round(x, 6), []).append(y)
            places = [round(float(x), 6) for x in line.get_xdata()]
            there = [(place, mean) for place, mean in zip(places, means, strict=True) if not math.isnan(mean)]
            found.add(tuple(rounded(mean, min(border[place]), max(border[place])) for place, mean in there))
    return found


def lines_of(found: Iterable[dict[str, str]], keys: Iterable[str], order: str) -> set[tuple[Bounds, ...]]:
    """Rows of a CSV as lines: one per combination of `keys`."""
    by_key: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in found:
        by_key.setdefault(tuple(row[key] for key in keys), []).append(row)
    return {
        tuple(rounded(*(float(row[name]) for name in ("mean", "low", "high"))) for row in sorted(mine, key=lambda row: float(row[order])))
        for mine in by_key.values()
    }


def marks(figure: Figure) -> set[Bounds]:
    """The marks of a forest plot: lines for the intervals, points of the same heights for the values."""
    found = set()
    for ax in figure.axes:
        intervals = {line[0][1]: line[:, 0] for drawn in ax.collections if isinstance(drawn, LineCollection) for line in drawn.get_segments()}
        values = [point for drawn in ax.collections if isinstance(drawn, PathCollection) for point in drawn.get_offsets()]
        assert len(values) == len(intervals)
        found |= {rounded(float(value), *map(float, intervals[height])) for value, height in values}
    return found


def turned(found: set[Bounds], lower_is_better: bool) -> set[Bounds]:
    return {rounded(-value, -high, -low) if lower_is_better else (value, low, high) for value, low, high in found}


def test_recovery(report: Path, evidence: Evidence) -> None:
    expected = bounds(rows(report / "drift.csv", measure="recovery_rate"), "value", 100)
    assert error_bars(draw("recovery", evidence), 0) == expected and len(expected) > 4


def test_drift(report: Path, evidence: Evidence) -> None:
    keys = ("model", "method", "run", "nature", "chains", "scorer")
    expected = lines_of(rows(report / "drift_curves.csv", condition="all"), keys, "position")
    assert curves(draw("drift", evidence)) == expected and len(expected) == 8


def test_conditions(report: Path, evidence: Evidence) -> None:
    found = rows(report / "drift_curves.csv", chains="own")
    expected = lines_of(found, ("model", "method", "run", "nature", "scorer", "condition"), "position")
    assert len({row["scorer"] for row in found}) == 2
    assert curves(draw("conditions", evidence)) == expected and len(expected) > 16


def test_conditions_of_many_methods_are_those_asked_about() -> None:
    spec = report_spec(score_spec([checkpoint(name) for name in ("base", "filler", "masked", "star1", "no_injection", "advchain")]))
    assert [group.method for group in shown_groups(spec, "r1")] == ["base", "star1", "no_injection", "advchain"]
    others = report_spec(score_spec([checkpoint(name) for name in ("a", "b", "c", "advchain", "d")]))
    assert [group.method for group in shown_groups(others, "r1")] == ["a", "b", "c", "advchain"]


def test_forest(report: Path, evidence: Evidence) -> None:
    found = rows(report / "contrasts.csv", family="table")
    expected = {mark for row in found for mark in turned(bounds([row], "difference", 100), row["metric"] in ("asr", "orr", "unsafe_rate"))}
    assert marks(draw("forest", evidence)) == expected and len(expected) > 5


def test_forest_chains(report: Path, evidence: Evidence) -> None:
    found = [row for row in rows(report / "drift_contrasts.csv") if row["measure"] in ("drift_rate", "recovery_rate")]
    expected = {mark for row in found for mark in turned(bounds([row], "difference", 100), row["measure"] == "drift_rate")}
    assert marks(draw("forest_chains", evidence)) == expected and len(expected) > 3


def test_training_chains(report: Path, evidence: Evidence) -> None:
    known = [row for row in rows(report / "tables/curves.csv") if row["mean"]]
    expected = {tuple(cut(*mean) for mean in line) for line in lines_of(known, ("axis", "nature", "kind"), "position")}
    found = {tuple(cut(*mean) for mean in line) for line in curves(draw("snowball", evidence))}
    assert found == expected and len(expected) > 2


def cut(*numbers: float) -> Any:
    """That file has three digits."""
    return tuple(round(number, 3) for number in numbers)


def test_training_loss(report: Path, evidence: Evidence) -> None:
    log = [json.loads(line) for line in (report.parent / "training.jsonl").read_text().splitlines()]
    (line,) = draw("training", evidence).axes[0].lines
    assert list(line.get_xdata()) == [row["step"] for row in log] and list(line.get_ydata()) == [row["loss"] for row in log]


def means(report: Path, evidence: Evidence, table: str, metric: str) -> Iterator[tuple[tuple[str, str], Bounds]]:
    """By method and run, the mean over a table's sets of the primary judge's rate; distances to the bounds add in squares."""
    sets = [name for name, info in evidence.spec.evaluations.items() if info.table == table]
    kind = "harm" if metric == "asr" else "refusal"
    primary = {name: next(judge for judge, measured in evidence.spec.evaluations[name].judges.items() if measured == kind) for name in sets}
    found: dict[tuple[str, str], list[Bounds]] = {}
    for row in rows(report / "scores.csv", metric=metric):
        if row["judge"] == primary.get(row["benchmark"]) and row["value"]:
            found.setdefault((row["method"], row["run"]), []).append(tuple(float(row[name]) for name in ("value", "low", "high")))  # type: ignore[arg-type]
    for key, mine in found.items():
        if len(mine) == len(sets):
            value = sum(one[0] for one in mine) / len(mine)
            below, above = (math.sqrt(sum((one[0] - one[end]) ** 2 for one in mine)) / len(mine) for end in (1, 2))
            yield key, rounded(100 * value, 100 * (value - below), 100 * (value + above))


@pytest.mark.parametrize(("axis", "tables", "metric"), [(0, ("over_refusal",), "orr"), (1, ("safety", "hijack"), "asr")])
def test_tradeoff(report: Path, evidence: Evidence, axis: int, tables: tuple[str, ...], metric: str) -> None:
    found = [mean for table in tables for mean in means(report, evidence, table, metric)]
    pooled = {(group.method, group.run) for group in _groups(evidence)}
    expected = {mean for key, mean in found if key in pooled}
    assert error_bars(draw("tradeoff", evidence), axis) == expected and len(expected) > 3


def test_ratio(report: Path, evidence: Evidence) -> None:
    known = {mean for table, metric in (("safety", "asr"), ("hijack", "asr"), ("over_refusal", "orr")) for _, mean in means(report, evidence, table, metric)}
    plotted = {point for line in curves(draw("ratio", evidence)) for point in line}
    assert plotted <= known and len(plotted) > 3


def test_every_figure_that_shows_data_is_read_back_here(evidence: Evidence) -> None:
    empty = {name for name in FIGURES if not draw(name, evidence).axes}
    assert empty == {"size", "rate"}  # the same function as ratio, over another setting


def _groups(evidence: Evidence) -> list[Any]:
    from advchain.report.grid import groups

    return groups(evidence.spec.checkpoints)
