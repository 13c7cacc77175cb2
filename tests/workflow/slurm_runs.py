"""Two runs through profiles/slurm on a real SLURM: the embedded default end to end, and jobs that ask for cards, time out and are requeued."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from slurm_cluster import ROOT, Cluster, snakemake
from tiny_training import make_model, make_spec, write_dataset

# Few SLURM jobs of many small ones, as docs/CLUSTER.md recommends for clusters that start jobs slowly.
GROUPS = (
    *("--groups", "source=data", "compared_benchmark=data", "prompts=data", "rewrite_chains=chains", "contamination=overlap", "contamination_table=overlap"),
    *(
        "dataset_card=overlap",
        "collect_responses=answers",
        *(f"judge_{name}=verdicts" for name in ("harmbench", "xstest", "math500")),
        "score=report",
        "report=report",
        "explorer=report",
    ),
    *("--group-components", "data=20", "chains=4", "overlap=9", "answers=20", "verdicts=20", "report=9"),
)
CARDS = ("--set-resources", "train:gpu=8", "generate:gpu=1")  # of a machine without any
CONFIG = ROOT / "tests/workflow/slurm.yaml"
TOY = ROOT / "tests/workflow/test_slurm.smk"


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
    """Start a cluster in `folder` and do both runs at the same time."""
    begun, outcome = time.monotonic(), Outcome(folder)
    jobs, default = folder / "jobs", folder / "default"
    jobs.mkdir(parents=True)
    make_model(jobs / "base")
    write_dataset(jobs / "rows.jsonl", 5)
    (jobs / "spec.json").write_text(make_spec(epochs=1).model_dump_json())
    shutil.copytree(small_model, default / "results/models/smollm2-135m")
    with Cluster(folder / "cluster", kill_wait=25) as cluster:
        toy = snakemake(cluster, TOY, jobs)
        guard = Thread(target=_default, args=(cluster, default, outcome, begun + seconds))
        guard.start()
        _requeue(cluster, jobs / "again.starts")
        outcome.codes["jobs"] = _end(toy, begun + seconds)
        guard.join()
        outcome.queue = cluster.jobs("%i|%T|%l|%k|%Z", states="all")
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def _end(process: subprocess.Popen[str], deadline: float) -> int:
    try:
        return process.wait(timeout=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _default(cluster: Cluster, folder: Path, outcome: Outcome, deadline: float) -> None:
    """The embedded default; its first run is killed with SIGKILL once it has a job in the queue, and its second one has to refuse."""
    arguments = ("--configfile", str(CONFIG), *GROUPS, *CARDS)
    first = snakemake(cluster, ROOT / "Snakefile", folder, *arguments)
    while first.poll() is None and not (orphans := _jobs_in(cluster, folder)):
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    outcome.orphans = orphans
    before = len(outcome.said("default"))
    outcome.codes["beside orphans"] = _end(snakemake(cluster, ROOT / "Snakefile", folder, *arguments), deadline)
    outcome.refused = outcome.said("default")[before:]
    cluster.ask("scancel", *orphans)
    for job in orphans:
        cluster.wait(job)
    outcome.codes["default"] = _end(snakemake(cluster, ROOT / "Snakefile", folder, *arguments), deadline)


def _jobs_in(cluster: Cluster, folder: Path) -> list[str]:
    return [line.split("|")[0] for line in cluster.jobs("%i|%Z") if line.split("|")[1] == str(folder)]


def _requeue(cluster: Cluster, starts: Path) -> None:
    """Requeue the job that waits for it, once it runs; SLURM would hold it back for two minutes."""
    end = time.monotonic() + 300
    while not starts.exists() and time.monotonic() < end:
        time.sleep(0.2)
    job = starts.read_text().split()[0]
    cluster.ask("scontrol", "requeue", job)
    cluster.wait(job, ("PENDING",))
    cluster.ask("scontrol", "update", f"jobid={job}", "starttime=now")
