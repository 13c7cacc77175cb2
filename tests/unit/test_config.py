"""The config is strict, explains itself, and its generated schema is in sync."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advchain.catalogue import read_yaml
from advchain.config import json_schema, load_config
from advchain.errors import ConfigError
from advchain.plan import Plan, whole_shares

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "config/config.yaml"


def message(overrides: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        Plan(load_config([DEFAULT], overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _attack(settings: dict) -> dict:
    return {"evaluation": {"benchmarks": {"mine": {"attack": settings}}}}


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"trian": {}}, ["unknown key 'trian'", "Did you mean 'train'?"]),
        ({"train": {"epoch": 3}}, ["train.epoch", "Did you mean 'epochs'?"]),
        ({"train": {"epochs": "many"}}, ["train.epochs", '"many"']),
        ({"train": {"learning_rate": 3}}, ["train.learning_rate", "less than 1"]),
        ({"data": {"from": "hubb"}}, ["data.from", "'hub'"]),
        ({"train": {"keep": "best"}}, ["train", "set `holdout_rows`"]),
        ({"train": {"holdout_rows": 40}}, ["train.holdout_rows: 40 rows are to be held out", "has 40"]),
        ({"train": {"trackers": ["tensorbord"]}}, ["train.trackers", "tensorboard"]),
        ({"grid": {"main": {"models": ["smolm2-135m"]}}}, ["grid.main.models", "Did you mean 'smollm2-135m'?"]),
        ({"grid": {"main": {"methods": ["advchian"]}}}, ["grid.main.methods", "Did you mean 'advchain'?"]),
        ({"grid": {"main": {"benchmarks": ["xtest"]}}}, ["grid.main.benchmarks", "Did you mean 'xstest'?"]),
        ({"evaluation": {"benchmarks": {"harmbnech": {}}}}, ["evaluation.benchmarks.harmbnech", "Did you mean 'harmbench'?"]),
        ({"evaluation": {"judges": {"safety": ["lama_guard"]}}}, ["unknown name 'lama_guard'"]),
        ({"chains": {"tc": {"teacher": "embeded"}}}, ["chains.tc.teacher", "Did you mean 'embedded'?"]),
        ({"chains": {"tc": {"errors": 4}}}, ["chains.tc.errors", "less than or equal to 3"]),
        ({"chains": {"tc": {"answers": "refusals"}}}, ["chains.tc.answers", "'safe_completion'"]),
        ({"chains": {"tc": {"peak": {"gat": True}}}}, ["chains.tc.peak", "Did you mean 'gate'?"]),
        ({"chains": {"tc": {"peak": {"judge": "openia"}}}}, ["chains.tc.peak.judge", "Did you mean 'openai'?"]),
        ({"chains": {"tc": {"count": 5}}}, ["needs 32 rows of chains 'tc', which makes 5"]),
        ({"sources": {"star1": {"from": "local"}}}, ["sources.star1", "needs a `path`"]),
        ({"sources": {"star1": {"path": "x.json"}}}, ["sources.star1", "add `from: local`"]),
        ({"evaluation": {"benchmarks": {"cot_hijack": {"attack": {"teacher": "embedded"}}}}}, ["also writes the training chains"]),
        ({"evaluation": {"benchmarks": {"cot_hijack": {"attack": {"source": None}}}}}, ["give either `source`", "nothing is given"]),
        ({"evaluation": {"benchmarks": {"cot_hijack": {"attack": {"after": "cot_hesitation"}}}}}, ["give either `source`", "source and after is given"]),
        (_attack({"name": "no_think", "source": "star1"}), ["give either `benchmarks`", "source is given"]),
        (_attack({"name": "no_think", "benchmarks": ["harmbnech"]}), ["Did you mean 'harmbench'?"]),
        (_attack({"name": "no_think", "benchmarks": ["xstest"]}), ["'no_think' is an attack on harmful prompts; those of 'xstest' are benign"]),
        (_attack({"name": "no_think", "benchmarks": ["mine"]}), ["it starts from itself"]),
        (_attack({"name": "reinjection", "after": "harmbench"}), ["attack.after: unknown name 'harmbench'"]),
        (_attack({"name": "reinjection", "after": "cot_hesitation"}), ["attack on harmful prompts"]),
        (_attack({"name": "reinjection", "after": "cot_hijack", "options": {"refusal_judge": "maths"}}), ["'maths' does not judge 'cot_hijack'"]),
        (
            _attack({"name": "reinjection", "after": "cot_hijack"}) | {"grid": {"main": {"benchmarks": ["mine"]}}},
            ["checkpoint smollm2-135m/advchain/seed2002 is not asked 'cot_hijack'"],
        ),
        ({"evaluation": {"benchmarks": {"cot_hijack": {"offset": 5}}}}, ["benchmarks.cot_hijack.offset: 5", "Set `offset` of those"]),
        ({"evaluation": {"benchmarks": {"xstest": {"offset": -1}}}}, ["xstest.offset", "greater than or equal to 0"]),
        ({"evaluation": {"benchmarks": {"math500": {"view": "full"}}}}, ["math500.view", "read off the answer"]),
        ({"evaluation": {"benchmarks": {"xstest": {"view": "all"}}}}, ["xstest.view", "'chain' or 'full'"]),
    ],
)
def test_bad_settings_get_one_paragraph(overrides: dict, parts: list[str]) -> None:
    text = message(overrides)
    for part in parts:
        assert part in text


def test_duplicate_key_names_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: a\nseed: 1\nname: b\n")
    with pytest.raises(ConfigError, match=r"c\.yaml, line 3: 'name' is given twice \(first in line 1\)"):
        read_yaml(path)


def test_scientific_notation_is_a_number_and_tabs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: 1e-4\nb: 2.5E3\nc: '1e-4'\nd: e5\n")
    assert read_yaml(path) == {"a": 1e-4, "b": 2500.0, "c": "1e-4", "d": "e5"}
    path.write_text("a:\n\tb: 1\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_yaml(path)


@pytest.mark.parametrize(("content", "says"), [(b"", "an empty file"), (b"- 1\n", "list"), (b"a: \xff\n", "not UTF-8")])
def test_files_that_are_no_config(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_yaml(path)


def test_extends_and_null(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: {DEFAULT}\nname: own\nevaluation: {{benchmarks: {{livecodebench: null}}}}\n")
    config = load_config([path])
    assert config.name == "own"
    assert "livecodebench" not in config.evaluation.benchmarks
    assert "harmbench" in config.evaluation.benchmarks


def test_schema_file_is_in_sync() -> None:
    assert json.loads((ROOT / "config/schema.json").read_text()) == json_schema(), "run `make schema`"


def test_paper_config_is_the_papers_grid() -> None:
    plan = Plan(load_config([ROOT / "config/paper.yaml"]))
    main = {(c.model, c.method) for c in plan.checkpoints if c.run in ("released", "seed2002")}
    for model in ("r1-1.5b", "r1-7b", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"):
        for method in ("base", "star1", "safechain", "unsafechain", "no_injection", "advchain"):
            assert (model, method) in main
    assert {m for m, method in main if method == "realsafe"} == {"r1-1.5b", "r1-7b"}
    parts = plan.dataset_spec("advchain").parts
    assert [(p.chains, p.count) for p in parts] == [("tc", 800), ("hc", 200)]
    train = plan.config.train
    assert (train.epochs, train.batch_size, train.learning_rate, train.max_length, train.warmup_ratio) == (5, 128, 1e-4, 8192, 0.05)
    assert {c.learning_rate for c in plan.checkpoints} == {0.0, 1e-5, 2e-5, 5e-5, 1e-4}


def test_variants_and_views_have_names_and_a_table_of_their_own() -> None:
    plan = Plan(load_config([ROOT / "config/attacks.yaml"]))
    infos = plan.evaluation_infos()
    assert (infos["harmbench"].title, infos["harmbench"].table, infos["harmbench"].paper) == ("HarmBench", "safety", "HarmBench")
    judged = infos["harmbench_star1"]
    assert (judged.title, judged.table, judged.paper) == ("harmbench_star1 (chain + answer judged)", "attacks", None)
    assert [name for name, info in infos.items() if info.paper == "CoT-Hijack"] == ["cot_hijack"]
    assert len({info.title for info in infos.values()}) == len(infos)
    assert infos["no_think_benign"].judges == infos["xstest"].judges  # a mirror is judged as benign prompts are
    assert {info.table for name, info in infos.items() if plan.evaluations[name].attack} == {"hijack", "attacks"}
    groups = {name: evaluation.group for name, evaluation in plan.evaluations.items()}
    assert (groups["no_think"], groups["cot_hijack_paraphrased"], groups["reinjection_2"], groups["reinjection_3"]) == ("direct", "attacks", "round1", "round2")
    assert plan.prompts_spec("no_think").attack.teacher is None and plan.prompts_spec("reinjection_3").attack.after == "reinjection_2"


def test_an_anchor_may_be_merged_and_a_key_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_yaml(path)["b"] == {"x": 1, "y": 3}
    path.write_text("a: {x: 1, x: 2}\n")
    with pytest.raises(ConfigError, match="'x' is given twice"):
        read_yaml(path)


def test_control_differs_from_advchain_in_injected_steps_only() -> None:
    plan = Plan(load_config([DEFAULT]))
    ours, control = plan.dataset_spec("advchain"), plan.dataset_spec("no_injection")
    assert [(p.chains, p.count) for p in ours.parts] == [(p.chains, p.count) for p in control.parts]
    assert {p.steps for p in ours.parts} == {"all"}
    assert {p.steps for p in control.parts} == {"base"}
    assert ours.seed == control.seed


@pytest.mark.parametrize(
    ("shares", "size", "counts"), [([0.8, 0.2], 1000, [800, 200]), ([1 / 3, 1 / 3, 1 / 3], 100, [34, 33, 33]), ([0.65, 0.35], 33, [21, 12])]
)
def test_shares_become_whole_rows(shares: list[float], size: int, counts: list[int]) -> None:
    assert whole_shares(shares, size) == counts


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ConfigError, match=r"sum to 0\.9"):
        whole_shares([0.8, 0.1], 10)


def test_another_tracker_trains_nothing_again() -> None:
    specs = []
    for trackers in (["tensorboard"], ["wandb", "mlflow"], []):
        plan = Plan(load_config([DEFAULT], {"train": {"trackers": trackers}}))
        specs.append([plan.train_spec(c) for c in plan.checkpoints if plan.method(c.method).kind == "train"])
    assert specs[0] == specs[1] == specs[2] != []
