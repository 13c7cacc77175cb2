"""Drive our client through N calls and print one JSON line: run as a process of its own, so that CPU and memory are the client's alone.

`python teacher_client.py '{"base_url": ..., "calls": 4000, "store": path or null, ...}'`; other keys are settings of the teacher.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from advchain.llm.client import Client
from advchain.llm.walk import walk
from advchain.specs import TeacherSpec
from advchain.store import Store

SYSTEM = "Task: echo\n" + "Repeat the row id in a JSON object, and nothing else. " * 12
STEPS = 4  # dependent calls of a chain


def messages(row: str, step: int) -> list[dict[str, str]]:
    """One request of a chain; the varying half names its row and step."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": json.dumps({"row": f"{row}.{step}", "filler": "y" * 400})}]


async def drive(client: Client, calls: int, marks: list[float]) -> int:
    """Send `calls` calls as chains of four dependent ones; return how many answers named their own row. `marks` gets the time of every answer."""

    async def chain(row: int, draft: int) -> int:
        right = 0
        for step in range(STEPS):
            completion = await client.complete(messages(f"r{row}", step), seed=row, purpose="bench")
            right += json.loads(completion.text)["row"] == f"r{row}.{step}"
            marks.append(time.monotonic())
        return right

    rows = range(calls // STEPS)
    window = 2 * client.teacher.max_in_flight
    return sum(await walk(rows, chain, lambda right: None, lambda row, error: None, need=len(rows), window=window, drafts=1))


async def main(settings: dict[str, Any]) -> None:
    """Run and report."""
    import aiohttp  # noqa: F401 - loaded before the clock starts

    calls, store_path = settings.pop("calls"), settings.pop("store", None)
    marks: list[float] = []
    teacher = TeacherSpec(**{"name": "bench", "model": "m", "max_tokens": 64, "max_in_flight": 400, **settings})
    store = Store(Path(store_path)) if store_path else None
    async with Client(teacher, store) as client:
        start, cpu = time.monotonic(), time.process_time()
        right = await drive(client, calls, marks)
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    figures = {
        "right": right,
        "stored": len(store) if store else None,
        "seconds": seconds,
        "steady_rate": (calls * 0.5) / (marks[int(calls * 0.9)] - marks[int(calls * 0.4)]),  # without slow start and the last slow answers
        "cpu_ms_per_request": 1000 * cpu / calls,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps({**figures, "faults": dict(client.usage.faults)}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
