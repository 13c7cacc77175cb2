"""gpurun: jobs of one machine or allocation never share a card, whoever is killed, and what holds a card can be seen."""

from __future__ import annotations

import fcntl
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/bench"))
GPURUN = str(ROOT / "scripts/gpurun")
SHOW = "echo seen:$CUDA_VISIBLE_DEVICES"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Three GPUs and locks of this test's own, outside any allocation."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "ADVCHAIN_GPU", "CUDA_VISIBLE"))}
    return outside | {"ADVCHAIN_GPUS": "0,1,2", "ADVCHAIN_GPU_LOCKS": str(tmp_path / "locks")}


def gpurun(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, GPURUN, *arguments], env=environment, capture_output=True, text=True, timeout=60)


def begin(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, GPURUN, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def soon(happened: Callable[[], bool]) -> bool:
    """Whether it happens within 20 s."""
    end = time.monotonic() + 20
    while not happened() and time.monotonic() < end:
        time.sleep(0.05)
    return happened()


def test_forty_jobs_with_kills_never_overlap_and_none_starves() -> None:
    import gpurun as bench

    found = bench.measure(40, 12, 0.5, seed=3)
    assert (found["overlaps"], found["starved"]) == (0, 0)
    assert found["killed_at_work"] >= 3


def test_a_job_sees_its_cards_and_gives_its_exit_code(environment: dict[str, str]) -> None:
    done = gpurun(environment, "2", "sh", "-c", f"{SHOW}; exit 3")
    assert (done.stdout, done.returncode) == ("seen:0,1\n", 3)
    assert gpurun(environment, "0", "sh", "-c", SHOW).stdout == "seen:\n"
    assert gpurun(environment, "1", "sh", "-c", "kill -9 $$").returncode == 128 + 9


@pytest.mark.parametrize(("arguments", "told"), [(["4", "true"], "4 GPU(s) asked, there is GPU(s) 0, 1, 2"), (["1", "no-such"], "cannot start no-such")])
def test_what_cannot_be_is_told(environment: dict[str, str], arguments: list[str], told: str) -> None:
    done = gpurun(environment, *arguments)
    assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr


def test_status_names_holder_and_since_when(environment: dict[str, str]) -> None:
    job = begin(environment, "2", "sleep", "60")
    try:
        assert soon(lambda: "sleep 60" in gpurun(environment, "--status").stdout)
        first, _, third = gpurun(environment, "--status").stdout.splitlines()
        assert first.startswith(f"gpu 0: pid {job.pid} (alive) since 2") and third == "gpu 2: free"
        waiting = begin(environment, "3", "true")
        assert soon(lambda: f"waiting: pid {waiting.pid} (alive)" in gpurun(environment, "--status").stdout)
    finally:
        job.terminate()
    assert job.wait(timeout=20) == 128 + signal.SIGTERM  # passed on to the command
    told = waiting.communicate(timeout=20)[1]
    assert waiting.returncode == 0 and f"waiting for 2 of 3 GPU(s). GPU 0: pid {job.pid} (alive)" in told


def test_looking_takes_nothing(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A status that held a free card's lock for a moment would send a job that collects just then to another card."""
    job = begin(environment, "2", "sleep", "60")
    assert soon(lambda: "gpu 1: pid" in gpurun(environment, "--status").stdout)
    for name in ("ADVCHAIN_GPUS", "ADVCHAIN_GPU_LOCKS"):
        monkeypatch.setenv(name, environment[name])
    commands, fcntl_before = [], fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", lambda file, command, *more: commands.append(command) or fcntl_before(file, command, *more))
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: commands.append("flock"))
    before = set(Path(environment["ADVCHAIN_GPU_LOCKS"]).iterdir())
    runpy.run_path(GPURUN, run_name="gpurun")["status"]()
    assert capsys.readouterr().out.splitlines()[2] == "gpu 2: free"
    assert set(commands) == {fcntl.F_OFD_GETLK} and set(Path(environment["ADVCHAIN_GPU_LOCKS"]).iterdir()) == before
    job.terminate()
    assert job.wait(timeout=20) == 128 + signal.SIGTERM


def test_an_orphan_keeps_its_card_and_status_says_whom_to_end(environment: dict[str, str], tmp_path: Path) -> None:
    """After SIGKILL of gpurun the command lives on: its card must not be given away."""
    job = begin(environment, "1", "sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    assert soon(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
    orphan = int((tmp_path / "pid").read_text())
    job.kill()
    job.wait()
    told = gpurun(environment, "--status").stdout.splitlines()[0]
    assert f"gpu 0: pid {job.pid} (gone)" in told and f"still open in pid {orphan} (sleep)" in told
    assert gpurun(environment, "1", "sh", "-c", SHOW).stdout == "seen:1\n"
    os.kill(orphan, signal.SIGKILL)
    assert soon(lambda: "gpu 0: free" in gpurun(environment, "--status").stdout)


def test_processes_left_behind_are_ended_before_the_card_is_free(environment: dict[str, str], tmp_path: Path) -> None:
    """A daemon that the command started, in a session of its own and without the lock, as Python's subprocess starts it."""
    start = f"import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=open('{tmp_path}/out', 'w')).pid)"
    done = gpurun(environment, "1", sys.executable, "-c", start)
    assert done.returncode == 0 and f"left 1 process(es) behind, ending them: {done.stdout.strip()}" in done.stderr
    assert not Path(f"/proc/{done.stdout.strip()}").exists()


def test_gpurun_inside_gpurun_shares_out_the_outer_cards(environment: dict[str, str]) -> None:
    inner = f"{sys.executable} {GPURUN} 1 sh -c '{SHOW}; sleep 1'"
    done = gpurun(environment, "2", "sh", "-c", f"{inner} & {inner} & wait")
    assert sorted(done.stdout.splitlines()) == ["seen:0", "seen:1"]


def test_inside_an_allocation_jobs_share_out_its_cards(environment: dict[str, str], tmp_path: Path) -> None:
    """A local run in an interactive SLURM shell: locks, on the cards that the shell has, apart from those of other allocations."""
    shell = environment | {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "CUDA_VISIBLE_DEVICES": "4,6"}
    for name in ("ADVCHAIN_GPUS", "ADVCHAIN_GPU_LOCKS"):
        del shell[name]
    jobs = [begin(shell, "1", "sh", "-c", f"{SHOW}; sleep 1") for _ in range(2)]
    assert sorted(job.communicate(timeout=20)[0] for job in jobs) == ["seen:4\n", "seen:6\n"]
    first = begin(shell, "2", "sleep", "60")
    assert soon(lambda: "sleep 60" in gpurun(shell, "--status").stdout)
    assert gpurun(shell | {"SLURM_JOB_ID": str(2**31 + os.getpid())}, "2", "sh", "-c", SHOW).stdout == "seen:4,6\n"
    first.terminate()
    first.wait(timeout=20)
    for job in (os.getpid(), 2**31 + os.getpid()):
        shutil.rmtree(f"/tmp/advchain-gpu-{os.getuid()}/job{job}")
    no_cards = {name: value for name, value in shell.items() if name != "CUDA_VISIBLE_DEVICES"}
    assert "srun --pty bash" in gpurun(no_cards, "1", "true").stderr


def test_cards_that_a_scheduler_gave_are_taken_as_they_are(environment: dict[str, str]) -> None:
    given = environment | {"ADVCHAIN_GPUS_GIVEN": "1", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "5"}
    both = [begin(given, "1", "sh", "-c", f"{SHOW}; sleep 0.5") for _ in range(2)]
    assert [job.communicate(timeout=20)[0] for job in both] == ["seen:5\n", "seen:5\n"]
    done = gpurun(given | {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "1", "true")
    assert done.returncode == 1 and "the scheduler gave this job none" in done.stderr
