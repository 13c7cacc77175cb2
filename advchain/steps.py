"""Split a chain of thought into steps and join it back, byte for byte.

A step is a blank-line paragraph (paper, section on the snowball analysis: chains are split at blank lines).
"""

from __future__ import annotations

import re

BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
JOIN = "\n\n"


def split_steps(thinking: str) -> list[str]:
    """Split `thinking` at blank lines; outer white space is dropped, inner line breaks are kept.

    >>> split_steps("one\\n\\ntwo\\nstill two\\n\\n")
    ['one', 'two\\nstill two']
    """
    return [step for step in BLANK_LINES.split(thinking.strip()) if step.strip()]


def join_steps(steps: list[str] | tuple[str, ...]) -> str:
    """Join steps with one blank line: the inverse of `split_steps` for steps without blank lines."""
    return JOIN.join(steps)


def insertion_points(num_steps: int) -> range:
    """Valid k for c_1..k, error, correction, c_k+1..n (METHOD 1.1): 1 <= k < n, so that both sides are non-empty."""
    return range(1, num_steps)
