"""Independent pieces of one job's work, several at a time in processes of their own."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from advchain.cli import start_logging, write_privately
from advchain.errors import AdvChainError

log = logging.getLogger(__name__)
T = TypeVar("T")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def share_cores(processes: int, num_tasks: int) -> int:
    """Return how many of `processes` have something to do; where they are several, each gets one thread in BLAS and polars, which share the cores already.

    To be called before numpy and polars are imported: they look once.
    """
    processes = min(processes, num_tasks)
    if processes > 1:
        os.environ.update(dict.fromkeys(THREADS, "1"))
    return processes


class Workers:
    """This process and `processes` - 1 others, which start at once: they import `modules` while this one still reads what the tasks are about.

    Use as a context manager. A worker waits for tasks at a pipe whose end it sees, and then for nobody, so none outlives a parent that was killed for longer
    than its work. Spawned, not forked: polars' threads do not survive a fork; a fork server wants a socket, whose path may not be long.
    """

    def __init__(self, processes: int, *modules: str) -> None:
        self._workers: dict[Connection, SpawnProcess] = {}
        if processes < 2:
            return
        context = multiprocessing.get_context("spawn")
        try:
            self._taken = context.Value("l", 0)
        except OSError as error:
            log.warning("one process works alone, as semaphores cannot be had (%s): is /dev/shm there and writable?", error)
            return
        for _ in range(processes - 1):
            mine, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(modules, self._taken, theirs), daemon=True)
            worker.start()
            self._workers[mine] = worker
            theirs.close()  # so that the end of the process is the end of the pipe

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._end()
        for pipe in self._workers:
            pipe.close()  # at which a worker ends, and cleans up: matplotlib without a home has a temporary folder
        for worker in self._workers.values():
            worker.join()
        self._workers.clear()

    def _end(self) -> None:
        for worker in self._workers.values():
            worker.terminate()
            worker.join()

    def run_all(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Return what each task returns, in their order; each process takes the next task that is left. Tasks and what they return are pickled.

        Raises:
            Whatever a task raised first; RuntimeError: a process died.
        """
        if not self._workers or len(tasks) < 2:
            return [task() for task in tasks]
        self._taken.value = 0
        with ThreadPoolExecutor(1) as dealer:  # tells and hears the others while this process works, so that none waits to be heard
            try:
                theirs_found = dealer.submit(_deal, tasks, list(self._workers))
                found = {number: tasks[number]() for number in _next(self._taken, len(tasks))} | theirs_found.result()
            except BaseException:
                self._end()  # their pipes end, and with them the dealer
                raise
        if len(found) < len(tasks):
            self._end()
            codes = [worker.exitcode for worker in self._workers.values()]
            raise RuntimeError(f"{len(tasks) - len(found)} of {len(tasks)} pieces of work were not done: a process ended early (exit codes {codes}).")
        return [found[number] for number in range(len(tasks))]


ALONE = Workers(1)


def _next(taken: Any, count: int) -> Iterator[int]:
    """Take one number after the other until none of `count` is left."""
    while True:
        with taken.get_lock():
            number = taken.value
            taken.value += 1
        if number >= count:
            return
        yield number


def _deal(tasks: Sequence[Callable[[], Any]], pipes: list[Connection]) -> dict[int, Any]:
    """Tell every worker all tasks and return what they found, once each has said that none is left, or is gone."""
    found: dict[int, Any] = {}
    busy = []
    for worker in pipes:
        with suppress(ConnectionError):  # gone: the others do its share
            worker.send(tasks)
            busy.append(worker)
    while busy:
        for pipe in wait(busy):
            assert isinstance(pipe, Connection)
            try:
                said = pipe.recv()
            except (EOFError, ConnectionError):
                said = None
            if said is None:
                busy.remove(pipe)
                continue
            number, result, error = said
            if error is not None:
                raise error
            found[number] = result
    return found


def _work(modules: Sequence[str], taken: Any, pipe: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends us
    start_logging()
    write_privately()
    for module in modules:
        importlib.import_module(module)
    while True:
        try:
            tasks = pipe.recv()
            for number in _next(taken, len(tasks)):
                pipe.send((number, *_outcome(tasks[number], number)))
            pipe.send(None)
        except (EOFError, ConnectionError):
            return  # the parent is gone, or needs us no more


def _outcome(task: Callable[[], Any], number: int) -> tuple[Any, Exception | None]:
    try:
        return task(), None
    except Exception as error:
        if not isinstance(error, AdvChainError):
            log.exception("process %d, piece of work %d", os.getpid(), number)  # pickling drops where it was raised
        return None, error
