"""Two runs through profiles/slurm on a real SLURM: the embedded default end to end, and jobs that ask for cards, time out and are requeued."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from slurm_cluster import ROOT, Cluster, snakemake
from tiny_training import make_spec, write_dataset

JUDGING = tuple(f"judge_{name}=verdicts" for name in ("harmbench", "xstest", "math500"))
GROUPS = ("--groups", *JUDGING, "--group-components", "verdicts=2")  # docs/CLUSTER.md: fewer SLURM jobs, for clusters that start them slowly
CARDS = ("--set-resources", "train:gpu=8", "generate:gpu=1")  # of a machine without any
ARGUMENTS = ("--configfile", str(ROOT / "tests/workflow/slurm.yaml"), *GROUPS, *CARDS)
TOY = ROOT / "tests/workflow/test_slurm.smk"
STEPS = 80  # of the training that is preempted


@dataclass
class Outcome:
    """What became of the runs: exit codes, folders, the answer of a start beside jobs without a run, and what the queue said."""

    folder: Path
    codes: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    orphans: list[str] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def cards(self) -> list[tuple[str, ...]]:
        """Node and CUDA_VISIBLE_DEVICES of each of the eight one-GPU jobs, which all ran at once."""
        return [tuple((self.folder / f"jobs/card{n}").read_text().split()) for n in range(8)]

    @property
    def training_cards(self) -> str:
        """CUDA_VISIBLE_DEVICES that the training of the embedded default saw."""
        (log,) = (self.folder / "default/results/logs/train").rglob("*.log")
        found = re.search(r"gpurun: GPU (\S+) of \S+, given by the scheduler", log.read_text())
        return found[1] if found else ""

    def said(self, name: str) -> str:
        """What a run printed."""
        return Path(self.folder / f"{name}.log").read_text()


def run(folder: Path, small_model: Path, seconds: float = 1800) -> Outcome:
    """Start a cluster in `folder`, kill a run of the default there, and do both runs at the same time."""
    begun, outcome = time.monotonic(), Outcome(folder)
    jobs, default = folder / "jobs", folder / "default"
    jobs.mkdir(parents=True)
    write_dataset(jobs / "rows.jsonl", 5)
    (jobs / "spec.json").write_text(make_spec(epochs=1).model_dump_json())
    (jobs / "kept.json").write_text(make_spec(epochs=STEPS).model_dump_json())
    shutil.copytree(small_model, default / "results/models/smollm2-135m")
    with Cluster(folder / "cluster", kill_wait=25) as cluster:
        _kill(cluster, default, outcome, begun + seconds)
        both = snakemake(cluster, ROOT / "Snakefile", default, *ARGUMENTS), snakemake(cluster, TOY, jobs)
        _requeue(cluster, jobs)
        outcome.codes |= {name: _end(process, begun + seconds) for name, process in zip(("default", "jobs"), both, strict=True)}
        outcome.queue = cluster.jobs("%i|%T|%l|%k|%Z", states="all")
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def _end(process: subprocess.Popen[str], deadline: float) -> int:
    try:
        return process.wait(timeout=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _kill(cluster: Cluster, folder: Path, outcome: Outcome, deadline: float) -> None:
    """A first run of the embedded default, killed with SIGKILL once it has a job in the queue, and a second one, which has to refuse."""
    first = snakemake(cluster, ROOT / "Snakefile", folder, *ARGUMENTS)
    while first.poll() is None and not (orphans := _jobs_in(cluster, folder)):
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    outcome.orphans = orphans
    before = len(outcome.said("default"))
    outcome.codes["beside orphans"] = _end(snakemake(cluster, ROOT / "Snakefile", folder, *ARGUMENTS), deadline)
    outcome.refused = outcome.said("default")[before:]
    cluster.ask("scancel", *orphans)
    for job in orphans:
        cluster.wait(job)


def _jobs_in(cluster: Cluster, folder: Path) -> list[str]:
    return [line.split("|")[0] for line in cluster.jobs("%i|%Z") if line.split("|")[1] == str(folder)]


def _requeue(cluster: Cluster, folder: Path) -> None:
    """Requeue the job that waits for it, once it runs; SLURM would hold it, and the one that is preempted, back for two minutes."""
    again = _job(folder / "again.starts")
    cluster.ask("scontrol", "requeue", again)
    _start_soon(cluster, again)
    _start_soon(cluster, _job(folder / "kept.starts"))


def _start_soon(cluster: Cluster, job: str) -> None:
    cluster.wait(job, ("PENDING", "COMPLETED", "FAILED"), seconds=300)
    cluster.ask("scontrol", "update", f"jobid={job}", "starttime=now")


def _job(starts: Path) -> str:
    """The job that has written its number there, once it runs."""
    end = time.monotonic() + 600
    while not starts.exists() and time.monotonic() < end:
        time.sleep(0.2)
    return starts.read_text().split()[0]
