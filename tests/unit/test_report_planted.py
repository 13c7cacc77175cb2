"""Planted effects: a known difference is said in the right words; without one nothing is claimed, in 100 simulated runs."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from report_grid import HARM, REFUSAL, checkpoint, evaluation, score_spec

from advchain.report.cells import Cell, Key
from advchain.report.contrasts import Contrast, conclude, contrasts
from advchain.report_specs import ScoreSpec

NUM_RUNS, NUM_ITEMS = 100, 200
SETS = {
    "harmbench": (evaluation("HarmBench", "safety", "harmful", {HARM: "harm"}), HARM, ("unsafe", "safe")),
    "hijack": (evaluation("CoT-Hijack", "hijack", "harmful", {HARM: "harm"}), HARM, ("unsafe", "safe")),
    "xstest": (evaluation("XSTest", "over_refusal", "benign", {REFUSAL: "refusal"}), REFUSAL, ("refused", "complied")),
}
METHODS = ("base", "star1", "no_injection", "advchain")


def spec() -> ScoreSpec:
    infos = [checkpoint(method, "released" if method == "base" else "seed0") for method in METHODS]
    return score_spec(infos, {name: info for name, (info, *_) in SETS.items()}).model_copy(update={"bootstrap_draws": 300})


def run(seed: int, effect: float, num_samples: int = 1) -> list[Contrast]:
    """One run: prompts differ in how hard they are, methods only in `effect`, which lowers every rate of AdvChain."""
    rng, cells = np.random.default_rng(seed), {}
    for name, (info, judge, (yes, no)) in SETS.items():
        chance = rng.beta(2, 3, NUM_ITEMS)
        for method in METHODS:
            rates = np.repeat(np.clip(chance - effect * (method == "advchain"), 0, 1), num_samples)
            items = np.repeat(np.arange(NUM_ITEMS), num_samples).astype(str)
            labels = np.where(rng.random(len(rates)) < rates, yes, no)
            frame = pl.DataFrame({"response_id": np.arange(len(rates)).astype(str), "item_id": items, "judge": judge, "label": labels})
            key: Key = ("r1", method, "released" if method == "base" else "seed0", name)
            cells[key] = Cell(*key, info, frame, pl.DataFrame())
    return conclude(spec(), contrasts(spec(), cells))


@pytest.mark.parametrize("num_samples", [1, 3])
def test_without_an_effect_nothing_is_claimed(num_samples: int) -> None:
    """Nine contrasts a run: a run errs if it establishes any of them."""
    silent = sum(all(row.sentence.startswith("not established: ") and not row.established for row in run(seed, 0.0, num_samples)) for seed in range(NUM_RUNS))
    assert silent >= 93


def test_a_planted_effect_is_said_with_its_size_and_direction() -> None:
    effects, covered, said = [], 0, 0
    for seed in range(NUM_RUNS):
        rows = [row for row in run(seed, 0.15) if row.benchmark == "harmbench"]
        assert len(rows) == 3
        effects += [row.difference for row in rows]
        truth = -np.minimum(np.random.default_rng(seed).beta(2, 3, NUM_ITEMS), 0.15).mean()  # what is left of 15 points where the rate was lower
        covered += sum(row.low <= truth <= row.high for row in rows)
        said += sum(
            row.sentence.startswith(f"lower by {-100 * row.difference:.1f} points [{-100 * row.high:.1f}, {-100 * row.low:.1f}], n = 200, p = ") for row in rows
        )
    assert np.mean(effects) == pytest.approx(-0.145, abs=0.01)
    assert covered >= 0.9 * 3 * NUM_RUNS
    assert said >= 0.7 * 3 * NUM_RUNS  # power: about four in five after Holm over nine
