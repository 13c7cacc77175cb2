"""The workflow through profiles/slurm on a real SLURM with four pretended nodes of eight pretended GPUs (tests/slurm_cluster.py)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_cluster
from slurm_runs import STEPS, Outcome, run
from test_dag import ROOT


@pytest.fixture(scope="module")
def installed() -> None:
    if lacking := slurm_cluster.missing():
        if os.environ.get("CI"):
            pytest.fail(f"{', '.join(lacking)} not found: in CI SLURM has to be installed (make slurm)")
        pytest.skip(f"{', '.join(lacking)} not found: install SLURM (make slurm) to run these tests")


@pytest.fixture(scope="module")
def outcome(installed: None, tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Outcome:
    return run(tmp_path_factory.mktemp("slurm"), small_model)


def test_the_embedded_default_runs_end_to_end(outcome: Outcome) -> None:
    assert outcome.codes["default"] == 0, outcome.said("default")[-5000:]
    assert (outcome.folder / "default/results/report.html").is_file()
    assert len([line for line in outcome.queue if line.endswith("/default")]) <= 20, outcome.queue


def test_the_training_saw_all_cards_of_one_node(outcome: Outcome) -> None:
    assert outcome.training_cards == "0,1,2,3,4,5,6,7"
    node, cards = (outcome.folder / "jobs/node").read_text().split()
    assert node in slurm_cluster.NODES and cards == "0,1,2,3,4,5,6,7"


def test_eight_jobs_at_once_saw_eight_cards(outcome: Outcome) -> None:
    assert outcome.codes["jobs"] == 0, outcome.said("jobs")[-5000:]
    assert len(set(outcome.cards)) == 8 and all(len(card.split(",")) == 1 for _, card in outcome.cards)


def test_a_job_out_of_time_is_retried_with_more_of_it(outcome: Outcome) -> None:
    attempts = [line.split("|")[1:3] for line in outcome.queue if "|rule_slow|" in line]
    assert sorted(attempts) == [["COMPLETED", "2:00"], ["TIMEOUT", "1:00"]]
    assert (outcome.folder / "jobs/slow").read_text() == "2\n"


def test_a_requeued_job_is_followed(outcome: Outcome) -> None:
    first, second = (outcome.folder / "jobs/again").read_text().split()
    assert first == second  # the same job, started twice


def test_a_preempted_training_goes_on_from_what_it_saved(outcome: Outcome) -> None:
    """A job of a partition before its own wants the node: it gets SIGTERM, is queued again by SLURM and followed by Snakemake."""
    first, second = (outcome.folder / "jobs/kept.starts").read_text().split()
    log = (outcome.folder / "jobs/kept/log").read_text()
    assert first == second and re.search(rf"resumed from \S+: [1-9]\d* of {STEPS} steps were done", log), log


def test_a_start_beside_jobs_without_a_run_is_refused(outcome: Outcome) -> None:
    assert outcome.codes["beside orphans"] == 1 and outcome.orphans
    assert f"{len(outcome.orphans)} SLURM job(s) of an earlier run" in outcome.refused and f"`scancel {' '.join(outcome.orphans)}`" in outcome.refused
    assert "cleared the lock of a run that was killed" in outcome.said("default")


def test_a_training_on_two_nodes_has_one_launcher_on_each(outcome: Outcome) -> None:
    log = (outcome.folder / "jobs/two/log").read_text()
    for rank in (0, 1):
        assert re.search(rf"node {rank} of 2, the first one at ({'|'.join(slurm_cluster.NODES)}):", log)
    assert log.count("GPUs here: 0,1,2,3,4,5,6,7") == 2 and "2 process(es)" in log


def test_an_interactive_shell_shares_out_the_cards_of_its_allocation(installed: None, tmp_path: Path) -> None:
    """Two jobs at once in a shell on the node; in the shell of the login node, which has no cards, one paragraph says where they are."""
    gpurun = f"{sys.executable} {ROOT}/scripts/gpurun 1 sh -c"
    jobs = f"{gpurun} 'echo $CUDA_VISIBLE_DEVICES; sleep 2' & {gpurun} 'echo $CUDA_VISIBLE_DEVICES; sleep 2' & wait"
    with slurm_cluster.Cluster(tmp_path / "cluster") as cluster:
        taken = cluster.submit("sleep 60", "--gpus=3", f"--nodelist={slurm_cluster.NODES[0]}")
        cluster.wait(taken, ("RUNNING",))
        allocate = ["salloc", "--ntasks=1", "--cpus-per-task=2", "--mem=100", "--gpus=2", f"--nodelist={slurm_cluster.NODES[0]}"]
        allocation, *used = cluster.ask(*allocate, "srun", "sh", "-c", f"echo $CUDA_VISIBLE_DEVICES; {jobs}").split()
        assert sorted(used) == sorted(allocation.split(",")) and len(used) == 2
        login = subprocess.run([*allocate, "sh", "-c", f"{gpurun} true"], env=cluster.environment, capture_output=True, text=True, timeout=60)
    assert login.returncode == 1 and "srun --pty bash" in login.stderr


def test_the_rule_asks_for_two_nodes_as_that_training_did(tmp_path: Path) -> None:
    """A copy of the workflow in which one model takes two nodes."""
    for name in ("Snakefile", "rules", "scripts", "config", "advchain", "envs"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    models = tmp_path / "config/models.yaml"
    text = models.read_text()
    entry = text.index("\nr1-7b:")
    models.write_text(text[:entry] + text[entry:].replace("\nr1-7b:", "\nr1-7b:\n  train_nodes: 2", 1))
    rules = tmp_path / "rules/train.smk"
    message = '    message:\n        "Training {wildcards.model} on {wildcards.method} ({wildcards.run})"\n'
    rules.write_text(rules.read_text().replace(message, ""))  # Snakemake shows a message or the resources
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", "--resources", "gpu=16", "--configfile", "config/paper.yaml"]
    target = "results/checkpoints/r1-7b/advchain/seed2002/model.json"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*command, "--", target], cwd=tmp_path, env=environment, capture_output=True, text=True)
    told = next(line for line in done.stdout.splitlines() + done.stderr.splitlines() if "mpi=" in line)
    for part in ("mpi=srun", "tasks_per_node=8", "cpus_per_task=8", "slurm_extra=--gpus-per-node=8", "gpu=16", "nodes=2"):
        assert part in told
