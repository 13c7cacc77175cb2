"""Work on many rows at once and admit them in order, so that the result does not depend on how many are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

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

    Rows are worked on concurrently, each on its own (no batch barrier), but admitted one after the other: what `admit` sees
    is the same for every concurrency. No row is started that would not be walked anyway, so nothing is paid for in vain.

    Args:
        work: (row, draft number) -> result; raises Rejected.
        admit: looks at a result in the light of those before it; raises Rejected to ask for another draft.
        reject: told about every row that is given up.
        window: rows in progress at most.
        drafts: drafts per row at most; a row that `work` itself gave up is not drafted again.

    Raises:
        AdvChainError: from the client; rows in flight may finish their current call first, which keeps its answer.
    """
    accepted: list[T] = []
    tasks: dict[int, asyncio.Task[T]] = {}
    try:
        for index, row in enumerate(rows):
            if len(accepted) >= need:
                break
            for ahead in range(index, min(index + window, index + need - len(accepted), len(rows))):
                if ahead not in tasks:
                    tasks[ahead] = asyncio.ensure_future(work(rows[ahead], 0))
            try:
                accepted.append(await _settle(row, tasks.pop(index), work, admit, drafts))
            except Rejected as error:
                reject(row, error)
    except AdvChainError:
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        raise
    finally:
        for task in tasks.values():
            task.cancel()
    return accepted


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
