"""The DAG of both shipped configs, planned by the real snakemake in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import planner
import pytest

from advchain.config import load_config
from advchain.files import expand_variables
from advchain.plan import Plan

ROOT = Path(__file__).resolve().parents[2]


def snakemake(folder: Path, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run snakemake on this repository with `folder` as the work folder."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-d", str(folder), "--cores", "2", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert not check or result.returncode == 0, result.stderr[-3000:]
    return result


def planned(result: subprocess.CompletedProcess[str]) -> Counter[str]:
    """Rule -> number of jobs, from the job table; all that judge together are "judge"."""
    return planner.by_kind(Counter({m[1]: int(m[2]) for m in re.finditer(r"^(\S+)\s+(\d+)$", result.stdout + result.stderr, re.MULTILINE)}))


def test_paper_grid_is_one_dag_with_gpus(tmp_path: Path) -> None:
    result = snakemake(tmp_path, "-n", "--configfile", str(ROOT / "config/paper.yaml"), PYTHONPROFILEIMPORTTIME="1")
    jobs = planned(result)
    assert jobs["train"] == 25 + 6 + 9 + 6  # main grid, ratio ablation, learning rates, seeds
    assert jobs["fetch_model"] == 7  # five bases, two RealSafe checkpoints
    assert jobs["attack"] == 2
    assert jobs["total"] == 926
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert "advchain" in loaded
    assert not {"torch", "transformers", "deepspeed", "vllm"} & loaded


def test_the_papers_own_blocks_are_under_a_thousand_jobs(tmp_path: Path) -> None:
    """Without the learning-rate sweep and the further seeds, which the paper does not have."""
    config = planner.changed(tmp_path / "own.yaml", ROOT / "config/paper.yaml", {"grid": {"learning_rate": None, "seeds": None}})
    assert sum(planner.run(tmp_path, [config]).rules.values()) == 743


def test_a_variable_that_is_not_set_is_told_at_once(tmp_path: Path) -> None:
    """In a folder with results, too, where only the report would be made again."""
    own = {"evaluation": {"benchmarks": {"xstest": {"from": "local", "path": "${NO_SUCH_FOLDER}/x.csv"}}}}
    config = planner.changed(tmp_path / "own.yaml", ROOT / "config/config.yaml", own)
    (tmp_path / "results/prompts").mkdir(parents=True)
    (tmp_path / "results/prompts/xstest.jsonl").touch()
    told = snakemake(tmp_path, "-n", "--configfile", str(config), check=False)
    assert told.returncode == 1 and "error: evaluation.benchmarks.xstest: path '${NO_SUCH_FOLDER}/x.csv' needs" in told.stderr
    assert "export NO_SUCH_FOLDER=" in told.stderr and "Wildcard" not in told.stderr


def test_fresh_prompts_train_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked after star_real.yaml in its folder: five sets of prompts to nine checkpoints, under Snakemake's own triggers."""
    monkeypatch.setenv("ADVCHAIN_DATA", str(tmp_path))
    for where, path in Plan(load_config([ROOT / "config/star_real.yaml"])).local_paths:
        file = Path(expand_variables(path, where))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert planner.run(tmp_path / "run", [ROOT / "config/star_real.yaml"], dry=False).rules["train"] == 9
    rules = planner.by_kind(planner.run(tmp_path / "run", [ROOT / "config/star_real_fresh.yaml"]).rules)
    assert not {"source", "rewrite_chains", "mix_dataset", "fetch_model", "train"} & set(rules)
    assert (rules["prompts"], rules["generate"], rules["collect_responses"]) == (5, 9, 45)


def test_each_part_of_the_grid_is_a_target(tmp_path: Path) -> None:
    """One model, method or benchmark: its verdicts and what they need, nothing of the others, no tables."""
    changes = {"grid": {"main": {"models": ["smollm2-135m", "qwen3-0.6b"], "methods": ["base", "advchain"]}}}
    config = planner.changed(tmp_path / "own.yaml", ROOT / "config/config.yaml", changes)

    def judged(target: str) -> tuple[Counter[str], set[tuple[str, str]]]:
        plan = planner.run(tmp_path, [config], [target])
        assert not {"score", "report", "explorer"} & set(plan.rules)
        return planner.by_kind(plan.rules), {(rule, wildcards) for rule, wildcards in plan.jobs if rule.startswith("judge_")}

    rules, jobs = judged("model_qwen3-0.6b")
    assert len(jobs) == 2 * 4 and all("model=qwen3-0.6b" in wildcards for _, wildcards in jobs) and rules["train"] == rules["fetch_model"] == 1
    rules, jobs = judged("method_base")
    assert len(jobs) == 2 * 4 and not {"train", "mix_dataset"} & set(rules)
    rules, jobs = judged("benchmark_xstest")  # with those that its judges read beside it
    assert {rule for rule, _ in jobs} == {"judge_xstest"} and len(jobs) == 2 * 2 and rules["collect_responses"] == 3 * 2 * 2
    for target, last in {"chains": "rewrite_chains", "datasets": "dataset_card", "checkpoints": "train", "responses": "collect_responses"}.items():
        assert planner.run(tmp_path, [config], [target]).rules[last] > 0
    assert planner.run(tmp_path, [config], ["tables"]).rules["report"] == 1
    assert judged("evaluate")[0]["judge"] == 4 * 4


def test_the_battery_of_attacks_is_one_dag(tmp_path: Path) -> None:
    """Eight checkpoints: four engine loads each, two further rounds on their own answers, two judges' views."""
    jobs = planned(snakemake(tmp_path, "-n", "--configfile", str(ROOT / "config/attacks.yaml")))
    assert jobs["generate"] == 8 * 4 and jobs["attack_again"] == jobs["view_responses"] == 8 * 2
    assert jobs["attack"] == 23 and jobs["collect_responses"] == 8 * 39 and jobs["judge"] == 8 * 9


def test_paper_trainings_ask_for_gpus_of_one_node(tmp_path: Path) -> None:
    target = "results/checkpoints/{}/advchain/seed2002/model.json"
    for model, gpus in (("r1-7b", 8), ("qwen3-0.6b", 1)):
        result = snakemake(tmp_path, "-n", "-p", "--quiet", "host", "--configfile", str(ROOT / "config/paper.yaml"), "--", target.format(model))
        text = result.stdout + result.stderr
        assert re.search(rf"gpurun {gpus} train\.py .*--processes {gpus} ", text)


def test_embedded_default_needs_no_gpu(tmp_path: Path) -> None:
    jobs = planned(snakemake(tmp_path, "-n", ADVCHAIN_GPUS=""))
    assert jobs["train"] == 3
    assert jobs["generate"] == 4


def test_typo_stops_before_any_job_with_one_paragraph(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(f"extends: {ROOT / 'config/config.yaml'}\ntrain: {{epoch: 3}}\n")
    result = snakemake(tmp_path, "-n", "--configfile", str(config), check=False)
    assert result.returncode == 1
    assert "train.epoch: unknown key 'epoch'" in result.stderr
    assert "Did you mean 'epochs'?" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "results").exists()
