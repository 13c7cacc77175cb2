"""Drive a peer through N independent calls and print one JSON line: `python teacher_peers.py '{"peer": "openai", "base_url": ..., "calls": 2000}'`.

openai: the SDK with asyncio.gather, a semaphore and its own retries, as most scripts do. inspect_ai: `Model.generate` with its default, adaptive
concurrency. Runs in an environment of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

SYSTEM = "Task: echo\n" + "Repeat the row id in a JSON object, and nothing else. " * 12
Ask = Callable[[int], Awaitable[str]]


def user(row: int) -> str:
    return json.dumps({"row": f"r{row}", "filler": "y" * 400})


def openai_sdk(settings: dict[str, Any]) -> Ask:
    import openai

    client = openai.AsyncOpenAI(api_key="none", base_url=settings["base_url"], max_retries=10)
    gate = asyncio.Semaphore(settings["in_flight"])

    async def ask(row: int) -> str:
        async with gate:
            messages: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user(row)}]
            reply = await client.chat.completions.create(model="m", messages=messages, seed=row, temperature=0.7, max_tokens=64)
            return reply.choices[0].message.content or ""

    return ask


def inspect_ai(settings: dict[str, Any]) -> Ask:
    os.environ["BENCH_API_KEY"] = "none"
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model

    config = GenerateConfig(temperature=0.7, max_tokens=64, **({"max_connections": settings["in_flight"]} if settings.get("in_flight") else {}))
    model = get_model("openai-api/bench/m", base_url=settings["base_url"], config=config)

    async def ask(row: int) -> str:
        reply = await model.generate([ChatMessageSystem(content=SYSTEM), ChatMessageUser(content=user(row))], config=GenerateConfig(seed=row))
        return reply.completion

    return ask


async def main(settings: dict[str, Any]) -> None:
    """Run and report."""
    ask = {"openai": openai_sdk, "inspect_ai": inspect_ai}[settings["peer"]](settings)
    calls = settings["calls"]
    start, cpu = time.monotonic(), time.process_time()
    replies = await asyncio.gather(*(ask(row) for row in range(calls)), return_exceptions=True)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    right = sum(isinstance(reply, str) and json.loads(reply)["row"] == f"r{row}" for row, reply in enumerate(replies))
    errors = sorted({type(reply).__name__ for reply in replies if isinstance(reply, BaseException)})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"right": right, "errors": errors, "seconds": seconds, "cpu_ms_per_request": 1000 * cpu / calls, "rss_mb": peak}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
