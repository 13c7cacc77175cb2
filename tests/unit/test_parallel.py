"""Work dealt to processes: order, errors, a process that dies."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import pytest

from advchain.errors import DataError
from advchain.parallel import THREADS, run_all


def square(number: int) -> tuple[int, int]:
    time.sleep(0.2 if number == 0 else 0)
    return number**2, os.getpid()


def complain(number: int) -> tuple[int, int]:
    if number == 2:
        raise DataError("rows.jsonl, line 3: no such column")
    return square(number)


def die(parent: int) -> tuple[int, int]:
    time.sleep(0.1)
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0, 0


def settings() -> tuple[int, list[str | None]]:
    time.sleep(0.1)
    return os.getpid(), [os.environ.get(name) for name in THREADS]


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_tasks(processes: int) -> None:
    found = run_all([partial(square, number) for number in range(6)], processes)
    assert [number for number, _ in found] == [0, 1, 4, 9, 16, 25]
    pids = {pid for _, pid in found}
    assert len(pids) == processes and os.getpid() in pids


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_is_the_same_from_a_process(processes: int) -> None:
    with pytest.raises(DataError, match="line 3: no such column"):
        run_all([partial(complain, number) for number in range(4)], processes)


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"1 of 40 pieces of work were not done: .*-9"):
        run_all([partial(die, os.getpid())] * 40, 2)


def test_processes_use_one_thread_each_and_leave_the_parent_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    pid, found = os.getpid(), run_all([settings] * 40, 2)
    assert {tuple(values) for other, values in found if other != pid} == {("1",) * len(THREADS)}
    assert ("7",) in {tuple(values[:1]) for other, values in found if other == pid}
    assert os.environ["OMP_NUM_THREADS"] == "7" and "POLARS_MAX_THREADS" not in os.environ
