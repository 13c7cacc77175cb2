"""The learning rate as a pure function of the step, so that a resumed training has nothing to restore."""

from __future__ import annotations

import math
from typing import Literal

Scheduler = Literal["cosine", "linear", "constant"]


def learning_rate(step: int, num_steps: int, peak: float, warmup_ratio: float, scheduler: Scheduler) -> float:
    """Return the learning rate of optimizer step `step` (from 0).

    Linear warm-up over ceil(num_steps * warmup_ratio) steps (METHOD 1.2: 5 per cent), the first at peak / n, not at zero: with
    the paper's 39 steps a zero step would waste one of two. Then cosine or linear to zero, which would be reached one step
    after the last, or constant.

    >>> [round(learning_rate(step, 4, 1.0, 0.25, "linear"), 2) for step in range(4)]
    [1.0, 1.0, 0.67, 0.33]
    """
    warmup = math.ceil(num_steps * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    if scheduler == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    if scheduler == "linear":
        return peak * (1.0 - progress)
    return peak
