"""Drift and recovery inside chains: what the measures count, and what they say of planted chains and of noise."""

from __future__ import annotations

import csv
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from report_grid import Grid, checkpoint, evaluation, labels, report_spec, score_spec

from advchain.report.drift import CurvePoint, Drift, expected_if_selected, hazard, measures_of, selected_by_chance
from advchain.report.drift_views import drift_curves, drift_table, read_rows
from advchain.report.drift_views import recovery as recovery_figure
from advchain.report.scores import drift_curves_path, drift_path, score
from advchain.report.step_chains import Draws, pack

CUES = {"guard": "harm", "cues": "steps"}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((1, 1, 5, 1), (1, 2)),  # two good steps, then a bad one: two chances, one taken
        ((1, 2, 2), (0, 2)),  # the last step has no next one
        ((1, 3, 5), (0, 1)),  # a wavering step ends the run of good ones
        ((5, 1), (0, 0)),  # never at risk
        ((1,), (0, 0)),
    ],
)
def test_hazard(steps: Sequence[float], expected: tuple[float, float]) -> None:
    above, below = hazard(pack([steps, (1, 1, 1, 1, 1, 1)]))  # beside a longer one: padding counts for nothing
    assert (above[0], below[0]) == expected


@pytest.mark.parametrize(("steps", "expected"), [((1, 5, 3, 2), 1.0), ((1, 5, 3), 0.0), ((2, 4, 4, 5), 0.0), ((1, 2), None), ((1, 5), None)])
def test_recovery(steps: Sequence[float], expected: float | None) -> None:
    chains = pack([steps, (1, 1, 1, 1, 1, 1)])
    rows = {row["measure"]: row["value"] for row in measures_of(chains, "own", Draws(chains.items, 0))}
    assert rows["recovery_rate"] == expected


def test_orders_that_begin_good_and_end_bad_are_counted_exactly() -> None:
    """Against every permutation."""
    for steps in [(1.0, 2.0, 3.0, 5.0, 4.0), (1.5, 3.0, 4.5), (1.0, 5.0), (3.0, 3.0, 5.0), (1.0, 1.0, 2.0, 4.0)]:
        chains = pack([steps])
        orders = [order for order in itertools.permutations(steps) if order[0] <= 2 and order[-1] >= 4]
        assert selected_by_chance(chains)[0] == pytest.approx(len(orders) / math.factorial(len(steps)))
        if orders:
            mean = np.mean(np.array(orders), axis=0)
            assert expected_if_selected(chains)[0] == pytest.approx(np.interp(np.linspace(0, 1, 11), np.linspace(0, 1, len(steps)), mean))


def measure(folder: Path, steps: Sequence[Sequence[float]], *, nature: str = "harmful", table: str = "safety", prefix: int = 0) -> dict[str, Drift]:
    """Score one cell with these step scores and return its measures by name."""
    judges = CUES if nature == "harmful" else {"phrases": "refusal", "cues": "steps"}
    spec = score_spec([checkpoint("base", "released")], {"set": evaluation("Set", table, nature, judges)})
    grid = Grid(folder)
    verdict = labels("unsafe", "safe", len(steps) // 2, len(steps)) if nature == "harmful" else labels("refused", "complied", len(steps) // 2, len(steps))
    grid.add(("r1", "base", "released", "set"), {next(iter(judges)): verdict, "cues": ["scored"] * len(steps)}, steps=steps, num_prefix_steps=prefix)
    score(folder / "scores.csv", spec, grid.verdicts, grid.responses)
    return {row.measure: row for row in read_rows(drift_path(folder / "scores.csv"), Drift)}


def test_measures_of_known_chains(tmp_path: Path) -> None:
    rows = measure(tmp_path, [(1, 5, 1), (1, 1, 5, 5), (1, 1, 1), (2, 2, 2)])
    assert (rows["drift_rate"].value, rows["drift_rate"].num) == (0.5, 4)
    assert rows["drift_hazard"].value == pytest.approx(2 / 7, abs=1e-6) and rows["drift_hazard"].num == 7
    assert (rows["recovery_rate"].value, rows["recovery_rate"].num, rows["ends_recovered"].value) == (0.5, 2, 0.5)
    assert rows["first_bad_position"].value == pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-6)
    assert rows["selected_share"].value == 0.25


def test_benign_prompts_are_turned_round(tmp_path: Path) -> None:
    rows = measure(tmp_path, [(5, 1, 5), (5, 5, 1, 1)], nature="benign", table="over_refusal")
    assert (rows["drift_rate"].value, rows["recovery_rate"].value) == (1.0, 0.5)


def test_forced_steps_are_not_the_models(tmp_path: Path) -> None:
    rows = measure(tmp_path, [(1, 5, 1, 1), (1, 5, 5, 4), (1, 5)], table="hijack", prefix=2)
    assert set(rows) == {"recovery_rate", "ends_recovered"}
    assert (rows["recovery_rate"].value, rows["recovery_rate"].num_chains) == (0.5, 2)  # the third wrote no step of its own


def test_a_planted_rise_is_seen_and_shuffled_steps_are_not(tmp_path: Path) -> None:
    draw = random.Random(1)
    rising = [sorted(draw.uniform(1, 5) for _ in range(8)) for _ in range(60)]
    rows = measure(tmp_path / "rising", rising)
    assert rows["rise"].value is not None and rows["rise"].value > 2 and rows["rise"].p is not None and rows["rise"].p < 1e-6
    assert rows["selected_share"].value is not None and rows["selected_share_shuffled"].value is not None
    assert rows["selected_share"].value > 3 * rows["selected_share_shuffled"].value


def test_noise_is_called_a_rise_no_more_often_than_it_should_be() -> None:
    draw = np.random.default_rng(0)
    found = []
    for _ in range(200):
        chains = pack([draw.uniform(1, 5, draw.integers(2, 12)).tolist() for _ in range(40)])
        rows = {row["measure"]: row for row in measures_of(chains, "own", Draws(chains.items, 0))}
        found.append(float(str(rows["rise"]["p"])))
    assert np.mean(np.array(found) < 0.05) <= 0.075


def test_selecting_alone_makes_a_curve_rise(tmp_path: Path) -> None:
    """Noise without any order: the selected chains rise from low to high, and so do the selected ones among the shuffled."""
    draw = random.Random(2)
    measure(tmp_path, [[draw.choice((1, 2, 3, 4, 5)) for _ in range(6)] for _ in range(300)])
    points = read_rows(drift_curves_path(tmp_path / "scores.csv"), CurvePoint)
    ends = {name: [p.mean for p in points if p.condition == name and p.position in (0.0, 1.0)] for name in ("all", "selected", "selected_shuffled")}
    assert abs(ends["all"][1] - ends["all"][0]) < 0.5
    for name in ("selected", "selected_shuffled"):
        assert ends[name][1] - ends[name][0] > 2


def test_pooled_seeds_keep_each_chain_with_its_own_outcome(tmp_path: Path) -> None:
    spec = score_spec([checkpoint("advchain", "seed0"), checkpoint("advchain", "seed1")], {"set": evaluation("Set", "safety", "harmful", CUES)})
    grid = Grid(tmp_path)
    for run, bad in (("seed0", True), ("seed1", False)):
        steps = [(5.0, 5.0) if bad else (1.0, 1.0)] * 6
        grid.add(("r1", "advchain", run, "set"), {"guard": ["unsafe" if bad else "safe"] * 6, "cues": ["scored"] * 6}, steps=steps)
    score(tmp_path / "scores.csv", spec, grid.verdicts, grid.responses)
    points = read_rows(drift_curves_path(tmp_path / "scores.csv"), CurvePoint)
    means = {point.condition: point.mean for point in points if point.position == 0.0}
    assert means == {"all": 3.0, "unsafe": 5.0, "safe": 1.0}


def test_table_and_figures(tmp_path: Path) -> None:
    measure(tmp_path, [(1, 5, 1), (1, 1, 5, 5), (1, 1, 1), (2, 2, 2), (1, 2, 1), (2, 1, 2)])
    spec = report_spec(score_spec([checkpoint("base", "released")], {"set": evaluation("Set", "safety", "harmful", CUES)}))
    rows = read_rows(drift_path(tmp_path / "scores.csv"), Drift)
    points = read_rows(drift_curves_path(tmp_path / "scores.csv"), CurvePoint)
    table = drift_table(spec, rows)
    assert [row[:3] for row in table.rows] == [["R1-7B", "harmful prompts", "base"]] and table.rows[0][4] == "6"
    with open(drift_path(tmp_path / "scores.csv"), newline="") as file:
        values = {row["measure"]: row["value"] for row in csv.DictReader(file)}
    assert f"{100 * float(values['drift_rate']):.1f}" in table.rows[0][5]
    assert len(drift_curves(spec, points).axes) == 1 and len(recovery_figure(spec, rows).axes) == 1
    assert "No step judge was run" in drift_curves(spec, []).texts[-1].get_text()
