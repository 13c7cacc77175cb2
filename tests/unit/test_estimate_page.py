"""What `estimate` prints: counts, sums, where each number comes from, and a width that a terminal shows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from advchain import catalogue
from advchain.config import load_config
from advchain.entries import HardwareEntry, ModelEntry, read_entry
from advchain.estimate.measured import Measured, rate
from advchain.estimate.memory import Setup, zero_of
from advchain.estimate.page import money, page
from advchain.estimate.rows import row_tokens
from advchain.estimate.shapes import Shape
from advchain.estimate.speed import cpu_rate, decode_rate, step_time, traffic_bytes
from advchain.estimate.stages import stages
from advchain.estimate.workload import Calls, Workload
from advchain.io import write_json
from advchain.plan import Plan

CONFIG = Path(__file__).resolve().parents[2] / "config"


def workload(name: str, results: Path, **overrides: object) -> Workload:
    return Workload(Plan(load_config([CONFIG / name], dict(overrides))), Measured.read(results))


def shape(name: str) -> Shape:
    found = read_entry("models", name, ModelEntry, "test").sizes
    assert found
    return found


RTX = read_entry("hardware", "rtx4090x8", HardwareEntry, "test")


@pytest.mark.parametrize("name", ["config.yaml", "paper.yaml", "controls.yaml", "star_real.yaml", "star_real_fresh.yaml"])
def test_every_config_has_an_estimate_that_fits_a_terminal(name: str, tmp_path: Path) -> None:
    text = page(workload(name, tmp_path), name)
    assert max(map(len, text.splitlines())) <= 120
    assert "nan" not in text and text.startswith(f"Estimate of {name}: ")


def test_the_paper_has_a_line_for_each_of_its_models(tmp_path: Path) -> None:
    text = page(workload("paper.yaml", tmp_path), "paper.yaml")
    lines = {line.split()[0]: line.split() for line in text.split("\n\n")[1].splitlines()}
    assert list(lines) == ["Training", "qwen3-0.6b", "qwen3-1.7b", "r1-1.5b", "qwen3-4b", "r1-7b"]
    for name in list(lines)[1:]:
        _, profile, runs, _, _, _, card, host, minutes, _, origin = lines[name]
        assert profile.startswith("zero") and int(runs) > 0 and 0 < float(card) < 22.5 and 0 < float(host) < 256 and 0 < float(minutes) < 30
        assert origin == "model"
    assert "has not yet been measured on a GPU" in text and "llama_guard_3_8b" in text


def test_rows_of_an_own_file_are_counted(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("prompt\nOne?\nTwo?\nThree?\n")
    own = {"benchmark": "file_benign", "from": "local", "path": str(tmp_path / "own.csv")}
    times = workload(
        "config.yaml", tmp_path, evaluation={"benchmarks": {"mine": own, "few": own | {"limit": 2}, "rest": own | {"offset": 1, "limit": 9}}}
    ).times
    assert [times.num_prompts(name) for name in ("mine", "few", "rest")] == [3, 2, 2]


def test_what_cannot_be_known_is_a_question_mark_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = catalogue.catalogue
    known = {**whole("models"), "bare": {"title": "Bare", "origin": "path:/models/bare", "family": "generic", "memory_gb": 1}}
    monkeypatch.setattr(catalogue, "catalogue", lambda name: known if name == "models" else whole(name))
    grid = {"main": {"models": ["bare"], "methods": ["base", "advchain"]}}
    text = page(workload("config.yaml", tmp_path, grid=grid), "x")
    assert "nan" not in text and "?" in text.split("\n\n")[1] and "give bare heads and `shape` in config/models.yaml" in " ".join(text.split())


def finished(results: Path, method: str, *, device: str, tokens: int = 1000, seconds: float = 100.0, epochs: int = 5, made: int = 100) -> None:
    """A training and its answers as their manifests tell them: `tokens` per epoch of 1,000 rows, twice as many in `made` of 100 answers."""
    run = Path("qwen3-0.6b") / method / "seed2002"
    counts = {"rows": 1000, "tokens": tokens}
    about = {"device": device, "seconds": seconds, "counts": counts, "peak_memory_gib": 7.5, "stage": "train"}
    write_json(results / "checkpoints" / run / "model.json", {"spec": {"epochs": epochs}, "manifest": about})
    gpus = 0 if device == "cpu" else 1
    answers = {"wanted": 100, "generated": made, "tokens": 2 * tokens}
    spec = {"sampling": {"harmbench": {"max_new_tokens": 8192}, "math500": {"max_new_tokens": 32768}}}
    write_json(results / "generated" / run / "direct.json", {"seconds": seconds, "gpus": gpus, "counts": answers, "spec": spec})


def test_rates_of_finished_jobs_stand_in_for_the_model(tmp_path: Path) -> None:
    finished(tmp_path, "star1", device="cuda", tokens=450_000, seconds=100.0)
    finished(tmp_path, "advchain", device="cuda", tokens=600_000, seconds=200.0)
    (tmp_path / "chains").mkdir()
    usage = {"answers": 3600, "input_tokens": 5_000_000, "output_tokens": 1_000_000, "usd": 12.5}
    (tmp_path / "chains/tc.manifest.json").write_text(json.dumps({"counts": usage}))
    (tmp_path / "chains/hc.manifest.json").write_text(json.dumps({"counts": {"rows": 3}}))
    (tmp_path / "checkpoints/qwen3-0.6b/advchain/seed2002/half.json").write_text("{")
    found = workload("paper.yaml", tmp_path)
    times, choice = found.times, found.plan.train_choice("qwen3-0.6b")
    middle = (5 * 450_000 / 100 + 5 * 600_000 / 200) / 2
    star1, advchain = (found.plan.checkpoint("qwen3-0.6b", method, "seed2002") for method in ("star1", "advchain"))
    assert times.training_seconds(star1, choice) == pytest.approx(5 * 450_000 / middle)
    assert times.training_seconds(advchain, choice) == pytest.approx(5 * 600_000 / middle)
    assert times.tokens_per_row(advchain) == 600
    num = sum(times.num_answers(advchain, name) for name in found.plan.evaluations_of(advchain))
    assert times.generation_seconds(advchain) == pytest.approx(num * 12_000 / ((900_000 / 100 + 1_200_000 / 200) / 2))
    trainings = {line.model: line for line in found.trainings}
    assert (trainings["qwen3-0.6b"].measured, trainings["r1-7b"].measured) == (2, 0)
    calls = {line.name: line for line in found.calls}
    assert (calls["chains tc"].num, calls["chains tc"].usd, calls["chains tc"].measured) == (3600, 12.5, True)
    assert not calls["chains hc"].measured
    text = page(found, "paper.yaml")
    assert "measured (2)" in text and max(map(len, text.splitlines())) <= 120


def test_one_slow_job_does_not_count(tmp_path: Path) -> None:
    for method, seconds in (("star1", 100.0), ("no_injection", 110.0), ("advchain", 900.0)):
        finished(tmp_path, method, device="cuda", seconds=seconds)
    known = Measured.read(tmp_path)
    assert rate(known.trainings["qwen3-0.6b"]) == pytest.approx(5 * 1000 / 110)


def test_lengths_and_memory_hold_for_the_same_size_only(tmp_path: Path) -> None:
    """A pilot on few rows, with short answers, says how fast the machine is, not how long the rows of another data set are."""
    finished(tmp_path, "advchain", device="cpu", tokens=600_000)
    plan = {"gpus": 0, "hardware": "cpu", "train": {"micro_batch_tokens": 8192}}
    same, other = (workload("paper.yaml", tmp_path, **plan, data={"from": "hub", "size": size}).times for size in (1000, 500))
    checkpoint = same.plan.checkpoint("qwen3-0.6b", "advchain", "seed2002")
    choice = same.plan.train_choice("qwen3-0.6b")
    assert same.tokens_per_row(checkpoint) == 600 and same.training_host_gib(checkpoint, choice) == 7.5
    assert other.tokens_per_row(checkpoint) == row_tokens(other.plan, "advchain") != 600 and other.training_host_gib(checkpoint, choice) != 7.5
    plan["evaluation"] = {"benchmarks": {name: {"max_new_tokens": 16384} for name in ("math500", "aime2024", "livecodebench")}}
    shorter, unknown = (workload("paper.yaml", results, **plan).times for results in (tmp_path, Path("nowhere")))
    assert shorter.generation_seconds(checkpoint) == pytest.approx(unknown.generation_seconds(checkpoint), rel=0.1)
    assert same.generation_seconds(checkpoint) != pytest.approx(unknown.generation_seconds(checkpoint), rel=0.5)


def test_a_job_that_found_most_answers_in_its_store_is_no_rate(tmp_path: Path) -> None:
    finished(tmp_path, "star1", device="cuda", made=49)
    assert Measured.read(tmp_path).generations == {}
    finished(tmp_path, "star1", device="cuda", made=50)
    assert len(Measured.read(tmp_path).generations["qwen3-0.6b"]) == 1


def test_few_answers_at_once_are_slow_on_a_cpu() -> None:
    """Measured on two shared cores: 17 to 18 tokens per second of a single answer, 182 to 190 of 23 side by side; held out: 138 to 146 of 14."""
    small, cpu = shape("smollm2-135m"), read_entry("hardware", "cpu", HardwareEntry, "test")
    assert [cpu_rate(small, cpu, rows) for rows in (1, 14, 23)] == pytest.approx([17.5, 142, 186], rel=0.05)


def test_runs_without_gpus_say_nothing_about_one_with(tmp_path: Path) -> None:
    finished(tmp_path, "star1", device="cpu")
    found = workload("paper.yaml", tmp_path)
    assert {line.measured for line in found.trainings} == {0} and {line.measured for line in found.generations} == {0}
    on_cpu = workload("paper.yaml", tmp_path, gpus=0, hardware="cpu", train={"micro_batch_tokens": 8192})
    line = next(line for line in on_cpu.trainings if line.model == "qwen3-0.6b")
    assert (line.measured, line.host_gib) == (1, 7.5)


def test_the_default_run_takes_what_was_measured() -> None:
    """Two shared cores, November 2026: trainings of 252, 165, 149 s, answers of 106, 136, 74, 65 s, 9.6 minutes in all, 6.6 GiB, 1.35 GB.

    The rates in hardware.yaml and speed.py were set on that run; what this keeps is that they are still the ones used.
    """
    found = workload("config.yaml", Path("nowhere"), gpus=0)
    training, answers = sum(line.num * line.seconds for line in found.trainings), sum(line.seconds for line in found.generations)
    assert training == pytest.approx(252 + 165 + 149, rel=0.3)
    assert answers == pytest.approx(106 + 136 + 74 + 65, rel=0.3)
    assert found.trainings[0].host_gib == pytest.approx(6.6, rel=0.1)
    assert sum(found.disk.values()) == pytest.approx(1.35e9, rel=0.1)


def test_the_replication_takes_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """config/star_real.yaml, on which nothing was set: nine trainings of 4,463 s and 8.3 GiB, ten checkpoints' answers of 512 tokens in 3,010 s.

    (Of the answers 3,900 s were measured: two jobs ran beside others and took two and three times as long as their like, which are counted here.)
    """
    monkeypatch.setenv("ADVCHAIN_DATA", "/nowhere")
    found = workload("star_real.yaml", Path("nowhere"), gpus=0, evaluation={"sampling": {"max_new_tokens": 512}})
    training, answers = sum(line.num * line.seconds for line in found.trainings), sum(line.seconds for line in found.generations)
    assert training == pytest.approx(4463, rel=0.3) and answers == pytest.approx(3010, rel=0.3)
    assert training + answers == pytest.approx(7473, rel=0.3)
    assert found.trainings[0].host_gib == pytest.approx(8.27, rel=0.1)


def test_rows_are_as_long_as_their_parts() -> None:
    """Measured in training sets of real rows: STAR-1 446 tokens, T-C and H-C 606 to 660; of the sample 252 and 407."""
    paper, default = workload("paper.yaml", Path("nowhere")).plan, workload("config.yaml", Path("nowhere"), gpus=0).plan
    assert row_tokens(paper, "star1") == pytest.approx(446, rel=0.1)
    assert row_tokens(paper, "advchain") == pytest.approx(633, rel=0.1)
    assert row_tokens(default, "star1") == pytest.approx(252, rel=0.1)
    assert row_tokens(default, "advchain") == pytest.approx(407, rel=0.1)
    assert row_tokens(default, "no_injection") == pytest.approx(260, rel=0.1)


def test_stages_run_side_by_side_where_they_fit() -> None:
    found = {stage.name: stage for stage in stages(workload("paper.yaml", Path("nowhere")))}
    assert found["answers"].jobs == 53 and 7 < found["answers"].slots <= 8  # one model takes two cards
    assert found["training"].slots < 3  # most trainings take four or eight cards
    assert all(stage.wall >= stage.longest and stage.wall <= max(stage.seconds, stage.longest) for stage in found.values())


def test_calls_are_counted_from_the_chains() -> None:
    own = {"chains": {"tc": {"errors": 2, "position": "middle", "teacher": "local_vllm"}}, "evaluation": {"judges": {"safety": ["gpt4o_harm"]}}}
    found = {line.name: line for line in workload("paper.yaml", Path("nowhere"), **own).calls}
    assert found["chains tc"].num == pytest.approx(850 * 2 * 3 * 1.1)  # no call for the place
    assert found["chains tc"].usd == 0.0  # a server of one's own
    judge = next(line for name, line in found.items() if name.startswith("judge GPT-4o"))
    assert judge.num > 10_000 and judge.usd == pytest.approx(judge.num * (1500 * 2.5 + 10 * 10) / 1e6)


def test_a_price_that_is_not_set_is_said() -> None:
    lines = [Calls("chains tc", "mine", 10, 1e6, 1e6, None, False), Calls("chains hc", "openai", 10, 1e6, 1e6, 12.5, False)]
    assert money(lines) == "12.50 USD; without mine, whose prices are not set in config/teachers.yaml"


def test_answers_stop_at_the_decoding_limit(tmp_path: Path) -> None:
    found = workload("paper.yaml", tmp_path)
    checkpoint = found.plan.checkpoint("r1-7b", "base", "released")
    assert [found.times.num_prompts(name) for name in ("harmbench", "wildjailbreak_harmful", "aime2024")] == [200, 300, 30]
    assert found.times.num_answers(checkpoint, "aime2024") == 30 * 16
    assert found.times.answer_tokens(checkpoint, "aime2024") == 12_000
    short = workload("paper.yaml", tmp_path, evaluation={"benchmarks": {"aime2024": {"max_new_tokens": 2048}}})
    assert short.times.answer_tokens(checkpoint, "aime2024") == 2048


def test_disk_counts_models_checkpoints_and_states(tmp_path: Path) -> None:
    disk = workload("paper.yaml", tmp_path).disk
    sizes = {name: 2.0 * read_entry("models", name, ModelEntry, "test").num_parameters for name in ("r1-1.5b", "r1-7b", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b")}
    assert disk["released models"] == sum(sizes.values()) + sizes["r1-1.5b"] + sizes["r1-7b"]  # and RealSafe's two
    assert disk["trained checkpoints"] == 5 * sum(sizes.values()) + 15 * sizes["r1-1.5b"] + 6 * sizes["qwen3-0.6b"]
    assert disk["saved state while training"] == 14 * sizes["r1-7b"]
    assert workload("paper.yaml", tmp_path, train={"save_every_steps": 0}).disk["saved state while training"] == 0


@pytest.mark.parametrize(("name", "seconds"), [("qwen3-0.6b", 17), ("r1-1.5b", 43), ("qwen3-1.7b", 48), ("qwen3-4b", 113), ("r1-7b", 196)])
def test_compute_is_that_of_the_published_table(name: str, seconds: float) -> None:
    """PERFORMANCE 1a: 3.03 M tokens in 39 steps on 8 cards at half their rate."""
    setup = Setup(shape(name), zero_of("zero2"), 16384, num_ranks=8)
    half = RTX.model_copy(update={"mfu": 0.5})
    steps = 5000 / 128
    assert steps * step_time(setup, half, 128 * 606, 128).compute == pytest.approx(seconds, rel=0.05)


def test_traffic_is_that_of_the_published_table() -> None:
    """PERFORMANCE 1c: ZeRO-3 moves 5.25 bytes per parameter and micro-step, a 7B step 40 GB in 2 to 4 s."""
    setup = Setup(shape("r1-7b"), zero_of("zero3"), 16384, num_ranks=8)
    assert traffic_bytes(setup, 1) / shape("r1-7b").num_parameters == pytest.approx(5.25)
    assert 2 < step_time(setup, RTX, 128 * 606, 128).traffic < 4
    assert step_time(Setup(shape("r1-7b"), zero_of("zero3"), 8192, num_ranks=8), RTX, 128 * 606, 128).traffic == pytest.approx(
        2 * traffic_bytes(setup, 1) / 15e9
    )


@pytest.mark.parametrize(
    ("name", "cards", "rate"),
    [("qwen3-0.6b", 1, 990), ("r1-1.5b", 1, 3480), ("qwen3-1.7b", 1, 880), ("qwen3-4b", 1, 500), ("r1-7b", 1, 560), ("r1-7b", 2, 1150)],
)
def test_decoding_is_that_of_the_published_table(name: str, cards: int, rate: float) -> None:
    """PERFORMANCE 2b at a mean context of 6,000 tokens, per card."""
    assert decode_rate(shape(name), RTX, 6000, cards) / cards == pytest.approx(rate, rel=0.15)


def test_a_cpu_run_has_hours_and_no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVCHAIN_GPUS", "")
    found = workload("config.yaml", tmp_path)
    text = page(found, "config.yaml")
    assert "on this machine, with nothing else running" in text and "Wall time" in text
    assert found.judging_gpu_hours == 0 and "card-hours    " not in text
    assert 0.5 < found.trainings[0].seconds / 228 < 2  # the default run's trainings took 228 s each
    assert not math.isnan(found.generations[0].seconds)
