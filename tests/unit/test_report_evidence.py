"""Two scorers, seeds, sweeps, forests: what each says of planted data."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import PathCollection
from report_grid import HARM, REFUSAL, Grid, checkpoint, evaluation, labels, report_spec, score_spec
from scipy.stats import spearmanr

from advchain.report.comparisons import read_contrasts
from advchain.report.drift import CurvePoint
from advchain.report.drift_conditions import LINES, conditions
from advchain.report.drift_views import read_rows
from advchain.report.forest import forest, forest_chains
from advchain.report.scorer_views import drift_contrasts_table, scorers_table
from advchain.report.scorers import (
    DriftContrast,
    ScorerAgreement,
    agreement_of,
    drift_contrasts_path,
    scorer_agreement_path,
    weighted_kappa,
)
from advchain.report.scores import contrasts_path, score
from advchain.report.sweeps import rate_sweeps, ratio_sweeps, size, size_sweeps
from advchain.report.tables import read_scores
from advchain.report.variance import Variance, components, variance_path
from advchain.report.variance_views import variance_table

STEPS = {"set": evaluation("Set", "safety", "harmful", {HARM: "harm", "cues": "steps", "model": "steps"})}
Chain = list[float]


def test_kappa_and_rank_correlation_are_the_textbook_ones() -> None:
    rng = np.random.default_rng(1)
    mine = rng.integers(1, 6, 400).astype(float)
    theirs = np.clip(mine + rng.integers(-2, 3, 400), 1, 5)
    frame = pl.DataFrame({"item": [str(i // 4) for i in range(0, 400, 4)], "mine": mine.reshape(-1, 4).tolist(), "theirs": theirs.reshape(-1, 4).tolist()})
    found = agreement_of(frame, 0)
    observed, chance = ((mine - theirs) ** 2).mean(), ((mine[:, None] - theirs[None, :]) ** 2).mean()
    assert found["kappa"] == pytest.approx(1 - observed / chance, abs=1e-6)
    assert found["spearman"] == pytest.approx(spearmanr(mine, theirs)[0], abs=1e-6)
    assert found["kappa_low"] < found["kappa"] < found["kappa_high"] and found["spearman_low"] < found["spearman"] < found["spearman_high"]
    assert (found["num_steps"], found["num_chains"], found["num_unscored"]) == (400, 100, 0)


def test_one_level_only_has_no_kappa() -> None:
    assert np.isnan(weighted_kappa(np.eye(25)[[0]] * 7))[0]
    frame = pl.DataFrame({"item": ["a", "b"], "mine": [[2.0], [2.0]], "theirs": [[2.0], None]}, schema_overrides={"theirs": pl.List(pl.Float64)})
    found = agreement_of(frame, 0)
    assert found["kappa"] is None and found["spearman"] is None and (found["num_chains"], found["num_unscored"]) == (1, 1)


def scored(folder: Path, second: Callable[[Chain], Chain]) -> tuple[Any, list[ScorerAgreement], list[DriftContrast]]:
    """STAR-1 drifts in every second chain and stays there, AdvChain comes back; `second` is what the other scorer makes of a chain."""
    spec = score_spec([checkpoint("star1"), checkpoint("advchain")], STEPS)
    grid, rng = Grid(folder), random.Random(0)
    for method, end in (("star1", 5.0), ("advchain", 1.0)):
        chains = [[1.0, 2.0, 5.0 if i % 2 else 1.0, float(rng.randint(4, 5)) if i % 2 else 1.0, end if i % 2 else 1.0] for i in range(60)]
        steps = {"cues": chains, "model": [second(chain) for chain in chains]}
        verdicts = {HARM: labels("unsafe", "safe", 20, 60), "cues": ["scored"] * 60, "model": ["scored"] * 60}
        grid.add(("r1", method, "seed0", "set"), verdicts, steps=steps)
    score(folder / "scores.csv", spec, grid.verdicts, grid.responses)
    path = folder / "scores.csv"
    return report_spec(spec), read_rows(scorer_agreement_path(path), ScorerAgreement), read_rows(drift_contrasts_path(path), DriftContrast)


def test_one_scorer_is_said_to_be_one() -> None:
    assert "nothing says whether another scorer would find the same" in scorers_table(report_spec(score_spec([checkpoint("base", "released")])), [], []).empty


def test_scorers_that_agree(tmp_path: Path) -> None:
    spec, agreements, changes = scored(tmp_path, lambda chain: [min(5.0, step + 0.2) for step in chain])
    assert [row.method for row in agreements] == ["all", "star1", "advchain"]
    assert all(row.kappa is not None and row.kappa > 0.95 and (row.kappa_low or 0) > 0.9 for row in agreements)
    back = {row.scorer: row for row in changes if row.measure == "recovery_rate"}
    assert (back["cues"].difference, back["cues"].num, back["cues"].num_reference) == (1.0, 30, 30) and back["model"].difference == 1.0
    table = drift_contrasts_table(spec, changes)
    assert next(row for row in table.rows if row[3] == "chains that come back")[-1] == "higher under both"
    agreement = scorers_table(spec, agreements, changes)
    assert agreement.rows[0][6:] == ["2 of 2", "0"]  # recovery, and ending recovered


def test_scorers_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    """The second scorer reads every step the other way round: what it finds is the opposite."""
    spec, agreements, changes = scored(tmp_path, lambda chain: [6 - step for step in chain])
    assert agreements[0].kappa is not None and agreements[0].kappa < 0 and agreements[0].spearman == pytest.approx(-1)
    assert "scorers differ" in {row[-1] for row in drift_contrasts_table(spec, changes).rows}
    assert int(scorers_table(spec, agreements, changes).rows[0][7]) >= 1
    drawn = forest_chains(spec, changes)
    assert len(drawn.axes) == 1 and drawn.axes[0].get_yticklabels()[0].get_text() == "harmful prompts: chains that drift"


def test_components_of_planted_scatter() -> None:
    """Seeds, prompts, their interaction and decoding, planted and found again, over many simulated grids."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        rates = 0.5 + 0.1 * rng.standard_normal((4, 1)) + 0.15 * rng.standard_normal((1, 80)) + 0.05 * rng.standard_normal((4, 80))
        found.append(components(rng.binomial(6, np.clip(rates, 0, 1)).astype(float), np.full((4, 80), 6.0)))
    seed, prompt, both, decoding = np.mean(found, axis=0)
    assert seed == pytest.approx(0.1**2, rel=0.35) and prompt == pytest.approx(0.15**2, rel=0.1) and both == pytest.approx(0.05**2, rel=0.4)
    assert decoding == pytest.approx(0.25 - 0.1**2 - 0.15**2 - 0.05**2, rel=0.05)
    one = components(np.array([[1.0, 0, 1, 0], [1, 0, 0, 0]]), np.ones((2, 4)))
    assert np.isnan(one.decoding) and one.both > 0


def test_the_table_of_seeds(tmp_path: Path) -> None:
    """Three seeds that differ by 10 points: the seeds carry the error, not 200 prompts."""
    sets = {"harmbench": evaluation("HarmBench", "safety", "harmful", {HARM: "harm"})}
    infos, grid = [checkpoint("advchain", f"seed{n}") for n in range(3)], Grid(tmp_path)
    for n, info in enumerate(infos):
        grid.add(("r1", "advchain", info.run, "harmbench"), {HARM: labels("unsafe", "safe", 20 + 20 * n, 200, num_excluded=n)})
    spec = score_spec(infos, sets)
    score(tmp_path / "scores.csv", spec, grid.verdicts, grid.responses)
    (row,) = read_rows(variance_path(tmp_path / "scores.csv"), Variance)
    assert (row.num_seeds, row.num_items, row.se_decoding) == (3, 198, None)
    assert row.sd_over_seeds == pytest.approx(0.1, abs=0.01) and row.se_seeds > row.se_prompts and row.se_total < row.sd_over_seeds
    assert variance_table(report_spec(spec), [row]).rows[0][2:5] == ["HarmBench ASR", "3", "198"]


def names(sweeps: Sequence[Any]) -> list[dict[float, str]]:
    return [{x: group.method for x, group in sweep.points.items()} for sweep in sweeps]


def test_a_sweep_varies_one_thing() -> None:
    """Another size or rate stays out of the ratio ablation; at one point AdvChain itself is shown, not a control of the same mix."""
    recipes = [("filler", 800, 200), ("advchain", 800, 200), ("ratio_100_0", 800, 0), ("ratio_80_20", 640, 160), ("ratio_50_50", 400, 400), ("half", 400, 100)]
    infos = [checkpoint(name, num_tc=tc, num_hc=hc) for name, tc, hc in recipes]
    infos.append(checkpoint("advchain", "seed1", num_tc=800, num_hc=200).model_copy(update={"learning_rate": 1e-4}))
    spec = report_spec(score_spec(infos))
    assert names(ratio_sweeps(spec)) == [{50.0: "ratio_50_50", 80.0: "ratio_80_20", 100.0: "ratio_100_0"}]
    assert names(size_sweeps(spec)) == [{500.0: "half", 800.0: "ratio_80_20", 1000.0: "advchain"}]
    assert names(rate_sweeps(spec)) == [{1e-5: "advchain", 1e-4: "advchain"}]
    assert ratio_sweeps(report_spec(score_spec(infos[:2]))) == []


def test_forest_and_sweep_figures(tmp_path: Path) -> None:
    sets = {
        "harmbench": evaluation("HarmBench", "safety", "harmful", {HARM: "harm"}),
        "xstest": evaluation("XSTest", "over_refusal", "benign", {REFUSAL: "refusal"}),
    }
    infos = [
        checkpoint("base", "released"),
        checkpoint("filler"),
        *(checkpoint(name, num_tc=tc, num_hc=tc // 4) for name, tc in (("advchain", 800), ("half", 400))),
    ]
    grid = Grid(tmp_path)
    for info, unsafe in zip(infos, (80, 40, 40, 60), strict=True):
        key = ("r1", info.method, info.run)
        grid.add((*key, "harmbench"), {HARM: labels("unsafe", "safe", unsafe, 200)})
        grid.add((*key, "xstest"), {REFUSAL: labels("refused", "complied", unsafe, 200, start=unsafe)})
    spec, path = score_spec(infos, sets), tmp_path / "scores.csv"
    score(path, spec, grid.verdicts, grid.responses)
    drawn = forest(report_spec(spec), read_contrasts(contrasts_path(path)))
    (panel,) = drawn.axes
    assert [text.get_text() for text in panel.texts] == ["AdvChain against base", "AdvChain against filler"]
    against_base, against_filler = (drawn for drawn in panel.collections if isinstance(drawn, PathCollection))  # each reference has its marker
    assert [value for value, _ in against_base.get_offsets()] == pytest.approx([20.0, 20.0])  # both rates fell by 20 points: right is better
    assert against_base.get_facecolors()[:, 3].tolist() == [1.0, 1.0]  # established: filled
    assert [value for value, _ in against_filler.get_offsets()] == pytest.approx([0.0, 0.0])
    assert not against_filler.get_facecolors()[:, 3].any()
    (sweep,) = size(report_spec(spec), read_scores(path)).axes
    assert list(sweep.lines[0].get_xdata()) == [500, 1000] and list(sweep.lines[0].get_ydata()) == pytest.approx([30.0, 20.0])
    assert len(sweep.collections) == 2  # a band each


def test_the_selection_stands_beside_its_null() -> None:
    """All chains, each outcome, the paper's selection, and the same selection of shuffled steps, dashed; for each step scorer."""
    names = {"model": "r1", "method": "advchain", "run": "seed0", "nature": "harmful", "chains": "own"}
    conditions_of = ("all", "unsafe", "selected", "selected_shuffled")
    points = [
        CurvePoint(**names, scorer=scorer, condition=condition, position=place / 10, mean=1 + place / 3, low=1, high=5, num_chains=9)
        for scorer in ("cues", "model")
        for condition in conditions_of
        for place in range(11)
    ]
    drawn = conditions(report_spec(score_spec([checkpoint("advchain"), checkpoint("star1")])), points)
    assert [panel.get_title().splitlines()[-1] for panel in drawn.axes] == ["by cues", "by model"]
    for panel in drawn.axes:
        assert [line.get_label() for line in panel.lines] == [LINES[condition][0] for condition in conditions_of]
        assert [line.get_linestyle() for line in panel.lines] == ["-", "-", "-", "--"] and len(panel.collections) == 4
    assert conditions(report_spec(score_spec([checkpoint("star1")])), []).get_label().endswith("no checkpoint writes chains of its own.")
