"""The coherence polish: two short seams where two authors meet. It never touches a word of the base chain (METHOD 1.1)."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from advchain.chains.repair import repair_seam
from advchain.chains.validators import read_seam
from advchain.llm.ask import Asker, load_prompt
from advchain.llm.replies import Rejected
from advchain.records import Chain

PROMPT = load_prompt("advchain.chains", "polish")


class Seams(NamedTuple):
    """What is put in front of the error step and in front of the base step after the correction; "" for nothing."""

    before_error: str = ""
    before_next: str = ""


async def polish(asker: Asker, chain: Chain, k: int, error: str, correction: str, draft: int, repairs: Counter[str]) -> Seams:
    """Ask for the two seams of a chain with an error and a correction after step k.

    Raises:
        Rejected: no attempt gave two usable seams.
    """
    payload = {"previous_step": chain.steps[k - 1], "error": error, "correction": correction, "next_step": chain.steps[k]}
    return await asker.ask(PROMPT, chain.id, payload, lambda fields: read_seams(fields, repairs), draft=draft)


def read_seams(fields: dict[str, Any], repairs: Counter[str] | None = None) -> Seams:
    """Return the seams of a reply; an absent one is empty."""
    values = [fields.get(name) or "" for name in Seams._fields]
    if not all(isinstance(value, str) for value in values):
        raise Rejected("unparsable", "a seam is no text")
    return Seams(*(read_seam(repair_seam(value, repairs if repairs is not None else Counter())) for value in values))
