"""Independent pieces of one job's work, several at a time in processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


def run_all(tasks: Sequence[Callable[[], T]], processes: int) -> list[T]:
    """Return what each task returns, in their order; this process and `processes` - 1 others each take the next task that is left.

    A process knows all tasks from its start and waits for nobody, so none outlives a parent that was killed for longer than its work. Tasks and what they
    return are pickled. Spawned, not forked: polars' threads do not survive a fork; a fork server wants a socket, whose path may not be long.

    Raises:
        Whatever a task raised first; RuntimeError: a process died.
    """
    if min(processes, len(tasks)) < 2:
        return [task() for task in tasks]
    context = multiprocessing.get_context("spawn")
    try:
        taken = context.Value("l", 0)
    except OSError as error:
        log.warning("one process works alone, as semaphores cannot be had (%s): is /dev/shm there and writable?", error)
        return [task() for task in tasks]
    workers: dict[Connection, SpawnProcess] = {}
    with ThreadPoolExecutor(1) as collector:  # reads while this process works, so that no other waits to be heard
        try:
            for _ in range(min(processes, len(tasks)) - 1):
                mine, theirs = context.Pipe(duplex=False)
                worker = context.Process(target=_work, args=(tasks, taken, theirs), daemon=True)
                worker.start()
                workers[mine] = worker
                theirs.close()  # so that the end of the process is the end of the pipe
            theirs_found = collector.submit(_collect, dict(workers))
            found = {number: tasks[number]() for number in _next(taken, len(tasks))} | theirs_found.result()
        finally:
            for worker in workers.values():
                worker.terminate()
                worker.join()
    if len(found) < len(tasks):
        codes = [worker.exitcode for worker in workers.values()]
        raise RuntimeError(f"{len(tasks) - len(found)} of {len(tasks)} pieces of work were not done: a process ended early (exit codes {codes}).")
    return [found[number] for number in range(len(tasks))]


def _next(taken: Any, count: int) -> Iterator[int]:
    """Take one number after the other until none of `count` is left."""
    while True:
        with taken.get_lock():
            number = taken.value
            taken.value += 1
        if number >= count:
            return
        yield number


def _collect(workers: dict[Connection, SpawnProcess]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    open_pipes = list(workers)
    while open_pipes:
        for pipe in wait(open_pipes):
            assert isinstance(pipe, Connection)
            try:
                number, result, error = pipe.recv()
            except EOFError:
                open_pipes.remove(pipe)
                continue
            if error is not None:
                raise error
            found[number] = result
    return found


def _work(tasks: Sequence[Callable[[], Any]], taken: Any, results: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    start_logging()
    write_privately()
    for number in _next(taken, len(tasks)):
        try:
            results.send((number, tasks[number](), None))
        except BrokenPipeError:
            return  # the parent is gone
        except Exception as error:
            if not isinstance(error, AdvChainError):
                log.exception("process %d, piece of work %d", os.getpid(), number)  # pickling drops where it was raised
            results.send((number, None, error))
            return
