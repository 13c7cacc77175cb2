"""Every rule once, on real training and generation at the smallest size; then what re-runs after a change."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from small_results import flips_missed, keeping_time, tiny_plan
from test_dag import planned, snakemake

from advchain.operations.bundle import check_bundle, write_bundle
from advchain.operations.planned import planned_specs
from advchain.operations.provenance import provenance
from advchain.operations.verify import verify

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/workflow/tiny.yaml"
CANARY = "sk-CANARY-91b2d07e55aa-1717"
SECRETS = dict.fromkeys(("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"), CANARY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """A work folder after one complete run, with secrets in its environment (the base model is copied from the tests' cache)."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(small_model, folder / "results/models/smollm2-135m")
    done = snakemake(folder, "--configfile", str(TINY), **SECRETS)
    assert CANARY not in done.stdout + done.stderr
    return folder


@pytest.fixture
def replan(finished: Path, tmp_path: Path) -> Callable[[dict], dict[str, int]]:
    """Rule -> jobs that a changed config would run again."""

    def plan(changes: dict) -> dict[str, int]:
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump({"extends": str(TINY)} | changes))
        return dict(planned(snakemake(finished, "-n", "--configfile", str(path))))

    return plan


def test_tables_and_report_come_out(finished: Path) -> None:
    results = finished / "results"
    with open(results / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["benchmark"]) for row in rows} >= {
        (m, b) for m in ("base", "advchain") for b in ("harmbench", "cot_hijack", "xstest", "math500")
    }
    assert all(0 <= float(row["value"]) <= 1 for row in rows if row["metric"] in ("asr", "rr", "orr", "pass@1") and row["value"])
    for table in ("safety", "hijack", "over_refusal", "reasoning"):
        assert (results / f"tables/{table}.csv").stat().st_size > 0
    assert "String match" in (results / "report.html").read_text()
    assert (results / "checkpoints/smollm2-135m/advchain/seed2002/model.safetensors").is_file()


def test_nothing_runs_twice(replan: Callable[[dict], dict[str, int]]) -> None:
    assert replan({}) == {}


def test_a_prompt_limit_re_runs_that_benchmark_only(replan: Callable[[dict], dict[str, int]]) -> None:
    jobs = replan({"evaluation": {"benchmarks": {"xstest": {"limit": 3}}}})
    assert jobs["prompts"] == 1
    assert jobs["generate"] == 2
    assert jobs["collect_responses"] == 2
    assert jobs["judge"] == 2
    assert not {"train", "mix_dataset", "rewrite_chains", "attack"} & set(jobs)


def test_a_training_setting_re_runs_training_onwards(replan: Callable[[dict], dict[str, int]]) -> None:
    jobs = replan({"train": {"weight_decay": 0.01}})
    assert jobs["train"] == 1
    assert jobs["generate"] == 1
    assert not {"mix_dataset", "rewrite_chains", "prompts", "attack"} & set(jobs)


def test_a_judge_setting_never_generates(replan: Callable[[dict], dict[str, int]]) -> None:
    jobs = replan({"evaluation": {"judges": {"over_refusal": ["refusal_phrases"]}}})
    assert jobs["judge"] == 2 * 2  # xstest, and cot_hesitation: it shared a job with xstest, and keeps its judges
    assert not {"train", "generate", "collect_responses"} & set(jobs)


def test_no_harmful_prompt_in_logs_or_report(finished: Path) -> None:
    prompts = (finished / "results/prompts/harmbench.jsonl").read_text()

    texts = [json.loads(line)["prompt"] for line in prompts.splitlines()]
    readable = [*(finished / "results/logs").rglob("*.log"), *(finished / "results/tables").glob("*"), finished / "results/report.html"]
    for path in readable:
        content = path.read_text(errors="replace")
        assert not any(text in content for text in texts), path


def test_e2_no_file_of_a_run_holds_a_secret(finished: Path) -> None:
    """Training, its trackers, engines and the sandbox among them; tests/faults has the runs that call an endpoint."""
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
    assert any("tfevents" in path.name for path in files) and any(".snakemake" in path.parts for path in files)


def test_verify_finds_nothing_in_a_finished_run_and_every_flipped_bit(finished: Path, tmp_path: Path) -> None:
    found = verify(finished / "results", planned_specs(tiny_plan()))
    assert found.problems == () and found.num_bytes > 5e8  # with the weights
    weights = shutil.ignore_patterns("models", "checkpoints", "logs", "benchmarks", ".work")
    results = Path(shutil.copytree(finished / "results", tmp_path / "results", ignore=weights))
    assert flips_missed(results, 1000) == []


def test_a_file_cut_with_its_time_kept_is_seen_by_verify_only_and_made_again_as_it_says(finished: Path) -> None:
    path = finished / "results/verdicts/smollm2-135m/base/released/xstest.jsonl"
    whole = path.read_bytes()
    keeping_time(path, lambda data: data[: len(data) // 2])
    assert planned(snakemake(finished, "-n", "--configfile", str(TINY))) == {}
    found = verify(finished / "results")
    assert [problem.path for problem in found.problems] == [path] and found.targets == [path]
    jobs = planned(snakemake(finished, "-n", "--configfile", str(TINY), "-R", str(path.relative_to(finished))))
    assert jobs["judge"] == 1 and jobs["score"] == 1 and not {"generate", "train"} & set(jobs)
    keeping_time(path, lambda data: whole)


def test_a_finished_run_goes_into_one_file_without_its_prompts(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.tar.gz"
    write_bundle(path, finished / "results", provenance(tiny_plan(), finished / "results", [TINY]))
    assert check_bundle(path).num_files > 50
    shutil.unpack_archive(path, tmp_path / "out", filter="data")
    prompts = [json.loads(line)["prompt"] for line in (finished / "results/prompts/harmbench.jsonl").read_text().splitlines()]
    texts = [file.read_text(errors="replace") for file in (tmp_path / "out").rglob("*") if file.is_file() and file.suffix != ".png"]
    assert not any(prompt in text for prompt in prompts for text in texts)
