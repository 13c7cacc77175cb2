"""Work on many rows at once and admit them in order, so that the result does not depend on how many are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from advchain.errors import AdvChainError
from advchain.llm.replies import Rejected

R = TypeVar("R")
T = TypeVar("T")


async def walk(
    rows: Sequence[R],
    work: Callable[[R, int], Awaitable[T]],
    admit: Callable[[T], None],
    reject: Callable[[R, Rejected], None],
    *,
    need: int,
    window: int,
    drafts: int,
) -> list[T]:
    """Return the first `need` accepted results, in the order of `rows`.

    Rows are worked on concurrently, each on its own: a row goes from call to call as soon as its own last call is answered, and the next row starts when any
    row is done, so that a slow one at the head holds nobody up. They are admitted one after the other: what `admit` sees is the same for every
    concurrency. No row is started that would not be walked anyway, so nothing is paid for in vain.

    Args:
        work: (row, draft number) -> result; raises Rejected. It awaits its calls one after the other.
        admit: looks at a result in the light of those before it; raises Rejected to ask for another draft.
        reject: told about every row that is given up.
        window: rows in progress at most; finished rows that wait for their turn do not count.
        drafts: drafts per row at most; a row that `work` itself gave up is not drafted again.

    Raises:
        AdvChainError: from the client; rows in flight may finish their current call first, which keeps its answer.
    """
    accepted: list[T] = []
    front = _Front(rows, work, window)
    try:
        for index, row in enumerate(rows):
            if len(accepted) >= need:
                break
            front.advance(index + need - len(accepted))
            try:
                accepted.append(await _settle(row, front.tasks[index], work, admit, drafts))
            except Rejected as error:
                reject(row, error)
            del front.tasks[index]
    except AdvChainError:
        front.stop()
        await asyncio.gather(*front.tasks.values(), return_exceptions=True)
        raise
    finally:
        front.stop()
        for task in front.tasks.values():
            task.cancel()
    return accepted


class _Front(Generic[R, T]):
    """Starts rows in order: `window` in progress, none beyond the one that may still be needed."""

    def __init__(self, rows: Sequence[R], work: Callable[[R, int], Awaitable[T]], window: int) -> None:
        self.rows, self.work, self.window = rows, work, window
        self.tasks: dict[int, asyncio.Task[T]] = {}
        self.next = self.bound = self.in_progress = 0

    def advance(self, bound: int) -> None:
        """Rows before `bound` will be walked whatever comes: start as many as the window allows."""
        self.bound = max(self.bound, min(bound, len(self.rows)))
        self._fill()

    def stop(self) -> None:
        """Start no more rows."""
        self.bound = 0

    def _fill(self) -> None:
        while self.next < self.bound and self.in_progress < self.window:
            task = asyncio.ensure_future(self.work(self.rows[self.next], 0))
            self.tasks[self.next] = task
            self.next += 1
            self.in_progress += 1
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[T]) -> None:
        self.in_progress -= 1
        if task.cancelled() or isinstance(task.exception(), AdvChainError):
            self.stop()  # the stage ends
        self._fill()


async def _settle(row: R, first: asyncio.Task[T], work: Callable[[R, int], Awaitable[T]], admit: Callable[[T], None], drafts: int) -> T:
    result, draft = await first, 0
    while True:
        try:
            admit(result)
            return result
        except Rejected:
            draft += 1
            if draft >= drafts:
                raise
        result = await work(row, draft)
