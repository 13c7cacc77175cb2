"""What the report says about departures from the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advchain.config import load_config
from advchain.deviations import deviations
from advchain.plan import Plan

CONFIG = Path(__file__).resolve().parents[2] / "config"


def told(name: str, overrides: dict[str, Any] | None = None) -> str:
    return "\n".join(deviations(Plan(load_config([CONFIG / name], overrides or {}))))


def test_the_papers_own_grid_has_none() -> None:
    assert told("paper.yaml") == ""


def test_one_changed_setting_is_one_line() -> None:
    assert told("paper.yaml", {"train": {"epochs": 3}}) == "Training: epochs 3; the paper's 5."
    assert told("paper.yaml", {"data": {"size": 500}}).startswith("Training sets of 500 rows; the paper's have 1,000.")
    few = {"evaluation": {"benchmarks": {"harmbench": {"limit": 50}}}}
    assert told("paper.yaml", few) == "Fewer prompts than the paper's sets: HarmBench 50 of 200."


def test_the_embedded_default_names_sample_teacher_model_and_judge() -> None:
    text = told("config.yaml")
    for words in ("small sample that ships", "embedded grammar", "SmolLM2-135M", "not judged by Llama Guard 3"):
        assert words in text


def test_reasoning_sets_carry_an_equivalence_margin() -> None:
    infos = Plan(load_config([CONFIG / "paper.yaml"], {})).evaluation_infos()
    assert {name: info.margin for name, info in infos.items() if info.table == "reasoning"} == {"math500": 0.02, "aime2024": 0.05, "livecodebench": 0.05}
    assert {info.margin for info in infos.values() if info.table != "reasoning"} == {None}
