"""Turn the rows of a source into chains: split the thinking, and set aside what cannot be trained on, with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from advchain.io import Rejects
from advchain.records import Chain, Nature, content_id
from advchain.rows import prompt_key
from advchain.steps import split_steps

OPEN, CLOSE = "<think>", "</think>"
# Control tokens of the chat families. In content they are a template that leaked into the data: the model would learn to write turns.
TEMPLATE_TOKEN = re.compile(r"<[|｜][\w▁]{1,40}[|｜]>|</?think>|<(?:start|end)_of_turn>|\[/?INST\]")


class Draft(NamedTuple):
    """What a source file says of one row. Give `response` (thinking and answer in one text) or `thinking` and `answer`."""

    key: str | None
    prompt: str
    nature: Nature
    category: tuple[str, ...] = ()
    response: str | None = None
    thinking: str = ""
    answer: str = ""


def split_thinking(response: str) -> tuple[str, str] | None:
    """Split `<think>chain</think>answer`; the opening tag may be missing (SafeChain). None where the structure is not that.

    >>> split_thinking("<think>\\nso\\n</think>\\n\\nyes")
    ('so', 'yes')
    >>> split_thinking("never closed") is None
    True
    """
    thinking, close, answer = response.partition(CLOSE)
    thinking = thinking.strip().removeprefix(OPEN)
    if not close or OPEN in thinking or OPEN in answer or CLOSE in answer:
        return None
    return thinking.strip(), answer.strip()


def build_chains(drafts: Iterable[Draft], source: str, rejects: Rejects) -> Iterator[Chain]:
    """Yield one chain per sound draft; every other one is recorded in `rejects`.

    Reasons: no_think (not exactly one closed thinking block), empty_prompt, empty_chain, empty_answer, template_token, duplicate
    (the same prompt as an earlier row but for case and spaces), duplicate_id.
    """
    seen: dict[str, str] = {}
    ids: set[str] = set()
    for draft in drafts:
        chain_id = f"{source}-{draft.key}" if draft.key else content_id(source, draft.prompt, draft.response, draft.thinking)
        thinking, answer, reason, detail = _split(draft)
        key = prompt_key(draft.prompt)
        if not reason and key in seen:
            reason, detail = "duplicate", f"same prompt as {seen[key]}"
        if not reason and chain_id in ids:
            reason, detail = "duplicate_id", "the id stands for another prompt too"
        if reason:
            rejects.add(chain_id, reason, detail)
            continue
        seen[key] = chain_id
        ids.add(chain_id)
        steps = tuple(split_steps(thinking))
        yield Chain(id=chain_id, source=source, nature=draft.nature, prompt=draft.prompt, steps=steps, answer=answer, category=draft.category)


def _split(draft: Draft) -> tuple[str, str, str, str]:
    """Return (thinking, answer, reason to reject or "", detail)."""
    if draft.response is None:
        thinking, answer = draft.thinking.strip(), draft.answer.strip()
    elif (parts := split_thinking(draft.response)) is None:
        return "", "", "no_think", f"{draft.response.count(OPEN)} opening and {draft.response.count(CLOSE)} closing tags"
    else:
        thinking, answer = parts
    return thinking, answer, *_problem(draft.prompt, thinking, answer)


def _problem(prompt: str, thinking: str, answer: str) -> tuple[str, str]:
    """Return (reason, detail) of what makes a row unusable, ("", "") where nothing does. The detail quotes tokens, never content."""
    for name, text in (("prompt", prompt), ("chain", thinking), ("answer", answer)):
        if not text.strip():
            return f"empty_{name}", ""
        if found := TEMPLATE_TOKEN.search(text):
            return "template_token", f"{found[0]} in the {name}"
    return "", ""
