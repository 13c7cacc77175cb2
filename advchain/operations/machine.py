"""Checks of this machine: cards, memory, disk, sandbox, SLURM. Each gives lines; none changes anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from advchain.entries import JudgeEntry, read_entry
from advchain.errors import SandboxError
from advchain.estimate.measured import Measured
from advchain.estimate.memory import GIB
from advchain.estimate.workload import Workload
from advchain.judges import canary
from advchain.operations.pages import Line
from advchain.plan import Plan

SECTION = "Machine"
ANSWER_SECONDS = 6.0  # that a command of the machine may take
FREE_SHARE = 0.9  # of a card's memory that should be free before a run
MEMORY_TOTAL = Path("/proc/meminfo")


def said_by(command: Sequence[str]) -> str | None:
    """Return what a command prints, None where there is no such command, it fails or does not answer in time."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (subprocess.TimeoutExpired, OSError):
        return None
    return done.stdout if done.returncode == 0 else None


def gpu_lines(plan: Plan) -> Iterator[Line]:
    """Cards by name, driver, free memory, and whether they reach each other's memory."""
    told = said_by(["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits"])
    cards = [[part.strip() for part in line.split(",")] for line in (told or "").splitlines() if line.count(",") == 3]
    if not cards:
        yield _without_cards(plan)
        return
    names = sorted({card[0] for card in cards})
    total, free = ([float(card[column]) / 1024 for card in cards if card[column].isdigit()] for column in (1, 2))
    told = f"{len(cards)} x {' and '.join(names)}, driver {cards[0][3]}, {min(total, default=0):.1f} GiB a card, {min(free, default=0):.1f} free"
    held = [str(number) for number, (whole, left) in enumerate(zip(total, free, strict=False)) if left < FREE_SHARE * whole]
    if len(cards) < plan.gpus:
        yield Line(SECTION, "GPUs", "FAIL", told, f"the config plans with {plan.gpus}: set `gpus: {len(cards)}` and `hardware`, or run it where they are")
    elif held:
        fix = f"another program holds memory of card {', '.join(held)}: `nvidia-smi` names it; end it or leave the card out"
        yield Line(SECTION, "GPUs", "warn", told, fix)
    else:
        yield Line(SECTION, "GPUs", "ok", told)
    room = min(total, default=0)
    if room and room < 0.95 * plan.hardware.gib:
        fix = "set `hardware` to an entry of config/hardware.yaml for these cards, or add one"
        yield Line(SECTION, "card memory", "FAIL", f"{room:.1f} GiB, planned for {plan.hardware.title} with {plan.hardware.gib:g} GiB", fix)
    if len(cards) > 1:
        yield _peers(plan)


def _without_cards(plan: Plan) -> Line:
    if not plan.gpus:
        return Line(SECTION, "GPUs", "ok", "none, and the config plans with none: small models only")
    fix = "run on the node that has them; on a cluster's login node this is as it should be (--workflow-profile profiles/slurm); or set `gpus: 0`"
    return Line(SECTION, "GPUs", "warn", f"none here (nvidia-smi does not answer), the config plans with {plan.gpus}", fix)


def _peers(plan: Plan) -> Line:
    """GeForce drivers may say that cards reach each other and then hang: there the config's hardware switches it off."""
    told = said_by(["nvidia-smi", "topo", "-p2p", "r"]) or ""
    cells = [cell for line in told.splitlines() if line.strip().startswith("GPU") for cell in line.split()[1:]]
    reach = any(cell == "OK" for cell in cells)
    off = plan.hardware.environment.get("NCCL_P2P_DISABLE") == "1" or os.environ.get("NCCL_P2P_DISABLE") == "1"
    text = f"cards {'reach' if reach else 'do not reach'} each other's memory directly; NCCL_P2P_DISABLE={'1' if off else 'unset'}"
    if told and not reach and not off:
        return Line(SECTION, "peer-to-peer", "warn", text, "set NCCL_P2P_DISABLE: '1' in the environment of your entry in config/hardware.yaml")
    return Line(SECTION, "peer-to-peer", "ok", text)


def memory_line(plan: Plan) -> Line:
    """Host memory beside the hungriest job."""
    facts = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in MEMORY_TOTAL.read_text().splitlines() if line.endswith("kB")}
    total, free = facts["MemTotal"] / GIB, facts["MemAvailable"] / GIB
    need, what = max(((line.host_gib, line.model) for line in Workload(plan, Measured()).trainings), default=(0.0, ""))
    text = f"{free:.1f} of {total:.0f} GiB free" + (f"; a training of {what} takes {need:.1f}" if need else "")
    if plan.gpus and not list(Path("/dev").glob("nvidia[0-9]*")):
        return Line(SECTION, "memory", "ok", f"{text}, on a machine with its cards")
    if need > 0.9 * total:
        return Line(SECTION, "memory", "FAIL", text, f"jobs get nine tenths of {total:.0f} GiB: use a machine with more, `lora`, or a smaller model")
    if need > free:
        return Line(SECTION, "memory", "warn", text, "end what else runs here, or the training will be killed")
    return Line(SECTION, "memory", "ok", text)


def disk_lines(plan: Plan, results: Path) -> Iterator[Line]:
    """Free space beside what the plan writes, and whether it can be written."""
    place = next(folder for folder in [results.absolute(), *results.absolute().parents] if folder.is_dir())
    free, need = shutil.disk_usage(place).free / 1e9, sum(Workload(plan, Measured()).disk.values()) / 1e9
    text = f"{free:.0f} GB free at {place}; the config writes about {need:.1f}"
    if need > free:
        yield Line(SECTION, "disk", "FAIL", text, "free space, or link results/ to a larger disk; `make estimate` says what takes it")
    else:
        yield Line(SECTION, "disk", "warn" if need > 0.8 * free else "ok", text, "that is close" if need > 0.8 * free else "")
    for name, folder in (("results", place), ("temporary", Path(tempfile.gettempdir()))):
        if not os.access(folder, os.W_OK):
            yield Line(SECTION, name, "FAIL", f"{folder} cannot be written", "run it in a folder of your own" if name == "results" else "set TMPDIR")


def sandbox_lines(plan: Plan) -> Iterator[Line]:
    """The canary of advchain/judges, where the config grades model-written code."""
    judges = {judge for name in plan.evaluations for judge in plan.judges_of(name)}
    entries = [entry for judge in judges if (entry := read_entry("judges", judge, JudgeEntry, "judges")).kind == "code"]
    if not entries:
        return
    try:
        canary.check()
    except SandboxError as error:
        refused = any(entry.options.get("missing_sandbox") == "refuse" for entry in entries)
        reason, _, fix = str(error).partition(". ")
        without = "no code is graded: the judge stops" if refused else "code answers are left out and counted"
        yield Line(SECTION, "sandbox", "FAIL" if refused else "warn", f"{reason}; {without}", fix)
        return
    yield Line(SECTION, "sandbox", "ok", "bubblewrap; the canary was stopped at everything it tried")


def slurm_lines() -> Iterator[Line]:
    """Partitions, and whether the cluster keeps accounts, which the SLURM profile asks for the state of jobs."""
    if shutil.which("sbatch") is None:
        yield Line("Cluster", "SLURM", "ok", "no sbatch here: one node")
        return
    told = said_by(["sinfo", "-h", "-o", "%P %D %G"])
    if told is None:
        yield Line("Cluster", "SLURM", "warn", "sbatch is here, sinfo does not answer", "fine without a cluster; else ask its administrator about slurmctld")
        return
    parts = [line.split() for line in told.splitlines() if len(line.split()) == 3]
    shown = ", ".join(f"{name} ({nodes} node{'s' if nodes != '1' else ''}, {gres})" for name, nodes, gres in parts[:4])
    more = f" and {len(parts) - 4} more" if len(parts) > 4 else ""
    yield Line("Cluster", "SLURM", "ok", f"partitions {shown}{more}; profiles/slurm asks for `gpu` unless you set slurm_partition")
    if said_by(["sacct", "-n", "-X", "-o", "JobID"]) is None:
        yield Line("Cluster", "accounting", "warn", "sacct does not answer (no slurmdbd)", "set `slurm-status-command: squeue` in profiles/slurm/profile.yaml")
    else:
        yield Line("Cluster", "accounting", "ok", "sacct answers")
