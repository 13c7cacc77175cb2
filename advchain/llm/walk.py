"""Work on many rows at once and admit them in order, so that the result does not depend on how many are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

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
    check: Callable[[T], None] | None = None,
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
        check: raises Rejected for a result that `admit` would refuse now, and so will at its turn (it may only grow stricter); changes nothing.
            The next draft is then made at once, beside the other rows, and not when the row's turn has come and everybody waits; the outcome is the same.

    Raises:
        AdvChainError: from the client; rows in flight may finish their current call first, which keeps its answer.
    """
    accepted: list[T] = []
    front = _Front(rows, work, window, drafts, check)
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

    def __init__(self, rows: Sequence[R], work: Callable[[R, int], Awaitable[T]], window: int, drafts: int, check: Callable[[T], None] | None) -> None:
        self.rows, self.work, self.window, self.drafts, self.check = rows, work, window, drafts, check
        self.tasks: dict[int, asyncio.Task[list[T | Rejected]]] = {}
        self.next = self.bound = self.in_progress = 0
        self.stopped = False

    def advance(self, bound: int) -> None:
        """Rows before `bound` will be walked whatever comes: start as many as the window allows."""
        self.bound = max(self.bound, min(bound, len(self.rows)))
        self._fill()

    def stop(self) -> None:
        """Start no more rows."""
        self.stopped = True

    def _fill(self) -> None:
        while not self.stopped and self.next < self.bound and self.in_progress < self.window:
            task = asyncio.ensure_future(self._draft(self.rows[self.next]))
            self.tasks[self.next] = task
            self.next += 1
            self.in_progress += 1
            task.add_done_callback(self._done)

    async def _draft(self, row: R) -> list[T | Rejected]:
        """Return the row's drafts: the last one may pass, those before it cannot; a Rejected ends the list where `work` gave up."""
        made: list[T | Rejected] = []
        while len(made) < self.drafts:
            try:
                made.append(result := await self.work(row, len(made)))
            except Rejected as error:
                return [*made, error]
            if not self._is_hopeless(result):
                break
        return made

    def _is_hopeless(self, result: T) -> bool:
        try:
            if self.check is not None:
                self.check(result)
        except Rejected:
            return True
        return False

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.in_progress -= 1
        if task.cancelled() or isinstance(task.exception(), AdvChainError):
            self.stop()  # the stage ends
        self._fill()


async def _settle(row: R, first: asyncio.Task[list[T | Rejected]], work: Callable[[R, int], Awaitable[T]], admit: Callable[[T], None], drafts: int) -> T:
    made, draft = await first, 0
    while True:
        result = made[draft] if draft < len(made) else await work(row, draft)
        if isinstance(result, Rejected):
            raise result
        try:
            admit(result)
            return result
        except Rejected:
            draft += 1
            if draft >= drafts:
                raise
