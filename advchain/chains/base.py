"""The base chain c_1..n and the answer s: the source's own, or the teacher's where a row has no chain (METHOD 1.1, its step 1)."""

from __future__ import annotations

from typing import Any

from advchain.chains.answers import complies_plainly
from advchain.llm.ask import Asker, load_prompt
from advchain.llm.replies import Rejected, is_refusal, text_field
from advchain.llm.screening import has_operational_detail, screen_step
from advchain.records import Chain

PROMPT = load_prompt("advchain.chains", "base")
MIN_STEPS, MAX_STEPS = 3, 10


async def base_chain(asker: Asker, chain: Chain, max_words: int, draft: int) -> Chain:
    """Return the row with a chain and an answer; what the source has is kept byte for byte.

    Raises:
        Rejected: the teacher wrote no usable chain, or no answer where the source has none, in any attempt.
    """
    if chain.steps:
        return chain
    payload = {"category": list(chain.category), "request": chain.prompt, "nature": chain.nature, "answer": chain.answer}
    return await asker.ask(PROMPT, chain.id, payload, lambda fields: read_base(fields, chain, max_words), draft=draft)


def read_base(fields: dict[str, Any], chain: Chain, max_words: int) -> Chain:
    """Return the row completed with a reply, or raise Rejected."""
    steps = fields.get("chain")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise Rejected("unparsable", "field 'chain' is no list of texts")
    if not MIN_STEPS <= len(steps) <= MAX_STEPS:
        raise Rejected("bad_base_chain", f"{len(steps)} steps")
    if len(set(steps)) < len(steps):
        raise Rejected("bad_base_chain", "a step comes twice")
    answer = chain.answer if chain.answer.strip() else _read_answer(fields, chain)
    return chain.model_copy(update={"steps": tuple(screen_step(step, request=chain.prompt, max_words=max_words) for step in steps), "answer": answer})


def _read_answer(fields: dict[str, Any], chain: Chain) -> str:
    answer = text_field(fields, "answer")
    if chain.nature == "harmful" and (complies_plainly(answer) or has_operational_detail(answer)):
        raise Rejected("unsafe_answer")
    if chain.nature == "benign" and is_refusal(answer):
        raise Rejected("refusing_answer")
    return answer
