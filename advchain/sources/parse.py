"""Turn the rows of a source into chains: split the thinking, and set aside what cannot be trained on, with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

from advchain.errors import DataError
from advchain.manifests import Rejects
from advchain.records import Chain, Nature, content_id
from advchain.rows import Row, prompt_key, read_rows
from advchain.steps import split_steps

OPEN, CLOSE = "<think>", "</think>"
# Control tokens of the chat families. In content they are a template that leaked into the data: the model would learn to write turns.
TEMPLATE_TOKEN = re.compile(r"<[|｜][\w▁]{1,40}[|｜]>|</?think>|<(?:start|end)_of_turn>|\[/?INST\]")


class Draft(NamedTuple):
    """What a source file says of one row. Give `response` (thinking and answer in one text) or `thinking` and `answer`.

    `reject` is (reason, detail) of a row that the source's own rules set aside.
    """

    key: str | None
    prompt: str
    nature: Nature
    category: tuple[str, ...] = ()
    response: str | None = None
    thinking: str = ""
    answer: str = ""
    reject: tuple[str, str] | None = None


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


def build_chains(path: Path, read: Callable[[Row], Draft], source: str, rejects: Rejects) -> Iterator[Chain]:
    """Yield one chain per sound row of a file; every other one is recorded in `rejects`.

    Reasons: bad_columns (a column is missing or of another type), not_utf8, not_json (a line of a JSONL file), no_think (not exactly one
    closed thinking block), empty_prompt, empty_chain, empty_answer, template_token, duplicate (the same prompt as an earlier row but for
    case and spaces), duplicate_id, and those of the source itself.

    Args:
        read: turns a row into a draft; its DataError makes the row a reject.

    Raises:
        DataError: no row has the promised columns (that of the first row), or the file as a whole cannot be read.
    """
    known = _Known()
    for draft in _drafts(path, read, source, rejects):
        chain_id = f"{source}-{draft.key}" if draft.key else content_id(source, draft.prompt, draft.response, draft.thinking)
        thinking, answer, reason, detail = _split(draft)
        if not reason:
            reason, detail = known.problem(chain_id, draft.prompt)
        if reason:
            rejects.add(chain_id, reason, detail)
            continue
        known.add(chain_id, draft.prompt)
        steps = tuple(split_steps(thinking))
        yield Chain(id=chain_id, source=source, nature=draft.nature, prompt=draft.prompt, steps=steps, answer=answer, category=draft.category)


def _drafts(path: Path, read: Callable[[Row], Draft], source: str, rejects: Rejects) -> Iterator[Draft]:
    def bad(place: str, reason: str, detail: str) -> None:
        rejects.add(f"{source}-{place.rpartition(', ')[2].replace(' ', '-')}", reason, detail)

    first: DataError | None = None
    sound = False
    for row in read_rows(path, bad):
        try:
            draft = read(row)
        except DataError as error:
            first = first or error
            bad(row.place, "bad_columns", str(error))
            continue
        sound = True
        yield draft
    if first and not sound:
        raise first  # the wrong file, or renamed columns: one message instead of a reject per row


class _Known:
    """Prompts and ids of the rows so far."""

    def __init__(self) -> None:
        self._prompts: dict[str, str] = {}
        self._ids: set[str] = set()

    def problem(self, chain_id: str, prompt: str) -> tuple[str, str]:
        """Return (reason, detail) where a row repeats an earlier one, else ("", "")."""
        if earlier := self._prompts.get(prompt_key(prompt)):
            return "duplicate", f"same prompt as {earlier}"
        return ("duplicate_id", "the id stands for another prompt too") if chain_id in self._ids else ("", "")

    def add(self, chain_id: str, prompt: str) -> None:
        """Remember a row."""
        self._prompts[prompt_key(prompt)] = chain_id
        self._ids.add(chain_id)


def nature_of(row: Row) -> Nature:
    """Return the column `nature`, harmful where it is missing.

    Raises:
        DataError: it is neither harmful nor benign.
    """
    nature = row.optional("nature") or "harmful"
    if nature not in ("harmful", "benign"):
        raise DataError(f"{row.place}, column 'nature': '{nature}'; known: benign, harmful.")
    return cast(Nature, nature)


def _split(draft: Draft) -> tuple[str, str, str, str]:
    """Return (thinking, answer, reason to reject or "", detail)."""
    if draft.reject:
        return "", "", *draft.reject
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
