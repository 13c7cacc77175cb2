"""Work dealt to processes: order, errors, a process that dies."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from report_grid import ROOT, checkpoint, score_spec

from advchain.errors import DataError
from advchain.parallel import THREADS, Workers, share_cores

T = TypeVar("T")


def meet(folder: Path) -> int:
    """Return this process's number as soon as two processes have come: the first task of the parent waits for another process to begin."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid()


def square(number: int, folder: Path | None = None) -> tuple[int, int]:
    return number**2, meet(folder) if folder else os.getpid()


def complain(number: int) -> tuple[int, int]:
    if number == 2:
        raise DataError("rows.jsonl, line 3: no such column")
    return square(number)


def die(parent: int, folder: Path) -> None:
    if meet(folder) != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def leave_a_note(parent: int, folder: Path) -> None:
    """At the end of a process that is not this one."""
    if meet(folder) != parent:
        atexit.register((folder / "note").touch)


def refuse_or_sleep(parent: int, folder: Path) -> None:
    if meet(folder) == parent:
        raise DataError("not I")
    time.sleep(60)


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def run_all(tasks: Sequence[Callable[[], T]], processes: int) -> list[T]:
    with Workers(processes) as workers:
        return workers.run_all(tasks)


def test_results_come_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    found = run_all([partial(square, number, tmp_path) for number in range(6)], 2)
    assert [number for number, _ in found] == [0, 1, 4, 9, 16, 25]
    pids = {pid for _, pid in found}
    assert len(pids) == 2 and os.getpid() in pids


def test_workers_are_asked_again(tmp_path: Path) -> None:
    with Workers(2, "advchain.stats") as workers:
        for number in range(2):
            (tmp_path / str(number)).mkdir()
            found = workers.run_all([partial(square, 3, tmp_path / str(number)) for _ in range(4)])
            assert {value for value, _ in found} == {9} and len({pid for _, pid in found}) == 2


def test_a_worker_that_is_done_cleans_up(tmp_path: Path) -> None:
    with Workers(2) as workers:
        workers.run_all([partial(leave_a_note, os.getpid(), tmp_path)] * 2)
        assert not (tmp_path / "note").exists()
    assert (tmp_path / "note").exists()


def test_the_rest_do_the_work_of_one_that_could_not_start(capfd: pytest.CaptureFixture[str]) -> None:
    with Workers(2, "advchain.no_such_module") as workers:
        assert workers.run_all([partial(square, number) for number in range(3)]) == [(0, os.getpid()), (1, os.getpid()), (4, os.getpid())]
    assert "no_such_module" in capfd.readouterr().err


def test_an_error_of_this_process_waits_for_nobody(tmp_path: Path) -> None:
    """The other one has a minute's work left."""
    since = time.monotonic()
    with pytest.raises(DataError, match="not I"):
        run_all([partial(refuse_or_sleep, os.getpid(), tmp_path)] * 2, 2)
    assert time.monotonic() - since < 30


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """While they wait for tasks."""
    code = (
        "import time; from multiprocessing import active_children; from advchain.parallel import Workers; workers = Workers(3)\n"
        "print(*(worker.pid for worker in active_children()), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(alive(pid) for pid in pids)


def test_one_process_is_this_one() -> None:
    assert run_all([partial(square, number) for number in range(3)], 1) == [(0, os.getpid()), (1, os.getpid()), (4, os.getpid())]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_is_the_same_from_a_process(processes: int) -> None:
    with pytest.raises(DataError, match="line 3: no such column"):
        run_all([partial(complain, number) for number in range(4)], processes)


def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"1 of 4 pieces of work were not done: .*-9"):
        run_all([partial(die, os.getpid(), tmp_path)] * 4, 2)


@pytest.mark.parametrize(("processes", "num_tasks", "used"), [(1, 5, 1), (4, 1, 1), (4, 3, 3), (2, 5, 2)])
def test_several_processes_get_one_thread_each(monkeypatch: pytest.MonkeyPatch, processes: int, num_tasks: int, used: int) -> None:
    for name in THREADS:
        monkeypatch.setenv(name, "7")
    assert share_cores(processes, num_tasks) == used
    assert {os.environ[name] for name in THREADS} == {"1" if used > 1 else "7"}


@pytest.mark.parametrize(("num_models", "threads"), [(1, "7 7"), (2, "1 1")])
def test_scoring_shares_the_cores_before_polars_looks(tmp_path: Path, num_models: int, threads: str) -> None:
    """Of one model all threads are used; of several one each, and what the script imports before it knows must not import numpy or polars."""
    spec = score_spec([checkpoint("base", model=f"m{number}") for number in range(num_models)])
    code = (
        "import os, runpy, sys; from advchain.errors import DataError; main = runpy.run_path(sys.argv.pop(1))['main']\n"
        "try: main()\nexcept DataError: pass\n"  # there are no verdicts; by then both are imported
        "import polars; print(polars.thread_pool_size(), os.environ['OPENBLAS_NUM_THREADS'])"
    )
    arguments = ["--responses", tmp_path, "--verdicts", tmp_path, "--out", tmp_path / "scores.csv", "--processes", "2", "--spec", spec.model_dump_json()]
    environment = os.environ | dict.fromkeys(THREADS, "7")
    done = subprocess.run([sys.executable, "-c", code, ROOT / "scripts/score.py", *arguments], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == threads + "\n"


def test_without_semaphores_one_process_works_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A container whose /dev/shm is missing or read-only."""

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refuse)
    assert run_all([partial(square, number) for number in range(3)], 2) == [(0, os.getpid()), (1, os.getpid()), (4, os.getpid())]
    assert "is /dev/shm there and writable?" in caplog.text
