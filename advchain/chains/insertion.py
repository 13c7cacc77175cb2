"""Where to insert: k base steps come before an error step (METHOD 1.1; the rule for k is our choice, see DECISIONS.md)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from advchain.llm.ask import Asker, load_prompt
from advchain.llm.replies import Rejected
from advchain.records import Chain, derive_seed
from advchain.steps import insertion_points

PROMPT = load_prompt("advchain.chains", "insertion")


async def choose_points(asker: Asker, chain: Chain, position: str, errors: int, draft: int) -> list[int]:
    """Return `errors` distinct points k with 1 <= k < n in rising order, proposed by the teacher one by one, or fixed by `position`.

    Raises:
        Rejected: bad_insertion when the teacher names no free point in any attempt.
    """
    if position != "teacher":
        return fixed_points(position, errors, len(chain.steps), derive_seed(asker.seed, chain.id, "insertion"))
    points: list[int] = []
    for _ in range(errors):
        payload = {"category": list(chain.category), "request": chain.prompt, "chain": list(chain.steps)} | ({"taken": points} if points else {})
        known = tuple(points)
        points = sorted([*points, await asker.ask(PROMPT, chain.id, payload, lambda fields: read_point(fields, len(chain.steps), known), draft=draft)])  # noqa: B023
    return points


def fixed_points(position: str, errors: int, num_steps: int, seed: int) -> list[int]:
    """Return the first, middle, last or random insertion points of a chain of more than `errors` steps."""
    points = insertion_points(num_steps)
    if position == "random":
        return sorted(random.Random(seed).sample(points, errors)) if errors > 1 else [random.Random(seed).choice(points)]
    first = {"early": 0, "middle": max((len(points) - errors + 1) // 2, 0), "late": len(points) - errors}[position]
    return list(points[first : first + errors])


def read_point(fields: dict[str, Any], num_steps: int, taken: Sequence[int] = ()) -> int:
    """Return the proposed k, or raise Rejected."""
    value = fields.get("after_step")
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:6])
    if isinstance(value, bool) or not isinstance(value, int) or value not in insertion_points(num_steps) or value in taken:
        raise Rejected("bad_insertion")
    return value
