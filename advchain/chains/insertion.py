"""Where to insert: k base steps come before the error step (METHOD 1.1; the rule for k is our choice, see DECISIONS.md)."""

from __future__ import annotations

import random
from typing import Any

from advchain.llm.ask import Asker, load_prompt
from advchain.llm.replies import Rejected
from advchain.records import Chain, derive_seed
from advchain.steps import insertion_points

PROMPT = load_prompt("advchain.chains", "insertion")


async def choose_point(asker: Asker, chain: Chain, position: str, draft: int) -> int:
    """Return k with 1 <= k < n, proposed by the teacher or fixed by `position`.

    Raises:
        Rejected: bad_insertion when the teacher names no valid point in any attempt.
    """
    if position != "teacher":
        return fixed_point(position, len(chain.steps), derive_seed(asker.seed, chain.id, "insertion"))
    payload = {"category": list(chain.category), "request": chain.prompt, "chain": list(chain.steps)}
    return await asker.ask(PROMPT, chain.id, payload, lambda fields: read_point(fields, len(chain.steps)), draft=draft)


def fixed_point(position: str, num_steps: int, seed: int) -> int:
    """Return the first, middle, last or a random insertion point of a chain of `num_steps` >= 2."""
    points = insertion_points(num_steps)
    if position == "random":
        return random.Random(seed).choice(points)
    return {"early": points[0], "middle": points[len(points) // 2], "late": points[-1]}[position]


def read_point(fields: dict[str, Any], num_steps: int) -> int:
    """Return the proposed k, or raise Rejected."""
    value = fields.get("after_step")
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:6])
    if isinstance(value, bool) or not isinstance(value, int) or value not in insertion_points(num_steps):
        raise Rejected("bad_insertion")
    return value
