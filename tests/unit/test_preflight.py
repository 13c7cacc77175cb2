"""Who works in a folder: one run at a time, and what a killed one left is healed or told."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advchain import preflight

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
import subprocess, sys, time
from pathlib import Path
from advchain import preflight
from advchain.errors import AdvChainError
try:
    preflight.begin(Path(sys.argv[1]), ["snakemake", "--cores", "all", *sys.argv[3:]])
except AdvChainError as error:
    sys.exit(f"error: {error}")
if sys.argv[2] != "0":
    subprocess.Popen(["sleep", "60"], start_new_session=True)
print("at work", flush=True)
time.sleep(float(sys.argv[2]))
"""


def start(folder: Path, seconds: float, *more: str, **environment: str) -> subprocess.Popen[str]:
    """A run in `folder`: it starts one job and sleeps."""
    command = [sys.executable, "-c", BEGIN, str(folder), str(seconds), *more]
    own = {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(folder: Path, *more: str, **environment: str) -> tuple[int, str]:
    """A run that ends at once: exit code and what it said."""
    process = start(folder, 0, *more, **environment)
    told = "".join(process.communicate(timeout=60))
    return process.returncode, told


def at_work(folder: Path, **environment: str) -> subprocess.Popen[str]:
    process = start(folder, 60, **environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


def owner(folder: Path, **changes: object) -> None:
    """A file of a run that did not end cleanly."""
    value = {"pid": 4711, "host": "login1", "boot": "another-boot", "since": "2026-01-01 10:00:00", "command": "snakemake"} | changes
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.input.lock").write_text("results/x\n")
    (folder / preflight.OWNER).write_text(json.dumps(value))


def test_a_second_run_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = at_work(tmp_path)
    code, told = run(tmp_path)
    assert code == 1 and f"another run is at work in {tmp_path}: process {first.pid} on " in told
    assert "started 20" in told and "(snakemake --cores all)" in told and "Traceback" not in told
    first.kill()
    first.wait()


def test_a_killed_run_is_healed_and_its_jobs_are_ended(tmp_path: Path) -> None:
    first = at_work(tmp_path)
    last = preflight._read(tmp_path / preflight.OWNER)
    assert last is not None and last.pid == first.pid
    locks = tmp_path / preflight.LOCKS
    locks.mkdir()
    first.kill()
    first.wait()
    assert list(preflight.processes_of(last.run).values()) == ["sleep"]
    code, told = run(tmp_path)
    assert code == 0 and f"process {first.pid} on " in told and "ending what a killed run left at work" in told
    assert not locks.exists() and not preflight.processes_of(last.run)
    assert run(tmp_path)[1] == "at work\n"  # it ended cleanly: there is nothing to tell


def test_a_run_before_the_last_boot_is_stale(tmp_path: Path) -> None:
    owner(tmp_path, host=os.uname().nodename)
    assert run(tmp_path)[0] == 0 and not (tmp_path / preflight.LOCKS).exists()


def test_another_machines_run_is_forgotten_on_request_only(tmp_path: Path) -> None:
    owner(tmp_path)
    code, told = run(tmp_path)
    assert code == 1 and "process 4711 on login1, started 2026-01-01 10:00:00" in told and "snakemake --unlock" in told
    assert (tmp_path / preflight.LOCKS).exists()
    assert run(tmp_path, "--unlock")[0] == 0 and run(tmp_path)[0] == 0


def test_jobs_left_in_the_queue_are_named(tmp_path: Path) -> None:
    """squeue's answer as SLURM 22.05 gives it; a real queue is asked in tests/workflow/test_slurm.py."""
    rows = [f"79|RUNNING|advchain_3f|{tmp_path}", "80|PENDING|advchain_3f|/elsewhere", f"81|RUNNING|other|{tmp_path}", f"82|PENDING|advchain_9a|{tmp_path}"]
    squeue = tmp_path / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\n" + "".join(f"echo '{row}'\n" for row in rows))
    squeue.chmod(stat.S_IRWXU)
    path = f"{squeue.parent}:{os.environ['PATH']}"
    code, told = run(tmp_path, PATH=path)
    assert code == 1 and "2 SLURM job(s)" in told and "79 (RUNNING), 82 (PENDING)" in told and "`scancel 79 82`" in told
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert run(tmp_path, PATH=path)[0] == 0


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / ".snakemake").write_text("a file")
    code, told = run(tmp_path)
    assert code == 1 and "cannot write" in told and "Traceback" not in told


@pytest.mark.parametrize(("line", "looks"), [("--cores all", False), ("--summary", True), ("--report=r.html", True), ("--nolock -j1", True)])
def test_looking_takes_no_lock(line: str, looks: bool) -> None:
    assert preflight.only_looks(line.split()) is looks


def test_orphans_that_ignore_sigterm_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "GRACE_SECONDS", 0.3)
    last = preflight.Owner(1, "here", preflight._boot(), str(tmp_path), "snakemake")
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    orphan = subprocess.Popen([sys.executable, "-c", stubborn], env=os.environ | {preflight.RUN: last.run}, stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    orphan.stdout.readline()
    begun = time.monotonic()
    preflight._end_orphans(last)
    assert orphan.wait(timeout=5) == -signal.SIGKILL and time.monotonic() - begun < 10
