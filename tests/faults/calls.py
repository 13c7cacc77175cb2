"""What the fault tests share: a teacher that points at the endpoint, and calls through the real client."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from api_server.launch import ApiServer

from advchain.llm.client import Client, Completion
from advchain.specs import TeacherSpec
from advchain.store import Store


def teacher(server: ApiServer | None = None, **changes: Any) -> TeacherSpec:
    base = {"name": "tested", "base_url": server.base_url if server else "", "model": "m", "max_retries": 3, "timeout_seconds": 5.0, "max_in_flight": 64}
    return TeacherSpec(**{**base, **changes})


def messages(row: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Repeat the row."}, {"role": "user", "content": json.dumps({"row": f"r{row}"})}]


@dataclass
class Run:
    """What became of a number of calls."""

    outcomes: list[Completion | BaseException]
    client: Client
    seconds: float

    @property
    def right(self) -> int:
        """Answers that name their own row."""
        return sum(isinstance(done, Completion) and json.loads(done.text)["row"] == f"r{row}" for row, done in enumerate(self.outcomes))

    @property
    def error(self) -> BaseException:
        """The first error."""
        return next(done for done in self.outcomes if isinstance(done, BaseException))


def ask(spec: TeacherSpec, num: int = 1, store: Store | None = None, *, one_by_one: bool = False, backoff: float = 0.02) -> Run:
    """Ask for rows 0..num-1, at once or one after the other; errors are collected."""

    async def main() -> Run:
        async with Client(spec, store, backoff_seconds=backoff) as client:
            start = time.monotonic()
            calls = [client.complete(messages(row), seed=1, purpose="test") for row in range(num)]
            if one_by_one:
                outcomes = [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]
            else:
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            return Run(list(outcomes), client, time.monotonic() - start)

    return asyncio.run(main())
