"""RealSafe-style files: chains by R1 under explicit refusal instructions, in the layouts that LLaMA-Factory trains on.

RealSafe-R1 (arXiv 2504.10081) released models and no data (METHOD 3), so there is nothing to fetch: give your own file. Read are Alpaca rows
(instruction, input, output), ShareGPT rows (conversations of from and value) and OpenAI rows (messages of role and content); the
assistant's text is `<think>` chain `</think>` answer. Rows with more than one exchange are rejected as `multi_turn`. Optional columns:
id, category, nature (harmful or benign; harmful if left out: the paper's prompts are).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advchain.errors import DataError
from advchain.manifests import Rejects
from advchain.records import Chain
from advchain.rows import Row
from advchain.sources.parse import Draft, build_chains, nature_of

VERSION = 1
PIN = None
SAMPLE = None
USER, ASSISTANT, SYSTEM = {"user", "human"}, {"assistant", "gpt"}, {"system"}


def load(path: Path, rejects: Rejects) -> Iterator[Chain]:
    """Yield the chains of a file in one of the three layouts."""
    return build_chains(path, _draft, "realsafe", rejects)


def _draft(row: Row) -> Draft:
    key, nature, category = row.optional("id"), nature_of(row), row.texts("category")
    for column, role, content in (("messages", "role", "content"), ("conversations", "from", "value")):
        if column in row.values:
            turns = _turns(row, column, role, content)
            reject = None if [kind for kind, _ in turns] == ["user", "assistant"] else ("multi_turn", f"{len(turns)} messages")
            return Draft(key, turns[0][1] if turns else "", nature, category, turns[-1][1] if turns else "", reject=reject)
    # Alpaca's `input` is what the instruction is about; LLaMA-Factory joins them with a line break.
    prompt = "\n".join(text for text in (row.text("instruction"), row.text("input", empty=True) if "input" in row.values else "") if text)
    return Draft(key, prompt, nature, category, row.text("output"))


def _turns(row: Row, column: str, role: str, content: str) -> list[tuple[str, str]]:
    """Return (user or assistant, text) of each message but the system's."""
    messages: Any = row.values[column]
    if not isinstance(messages, list):
        raise DataError(f"{row.place}, column '{column}': a {type(messages).__name__} where a list of messages is expected.")
    turns = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            kind = type(message).__name__
            raise DataError(f"{row.place}, column '{column}': message {number} is a {kind}; an object with '{role}' and '{content}' is expected.")
        inner = Row(f"{row.place}, column '{column}', message {number}", message)
        who = inner.text(role)
        if who not in USER | ASSISTANT | SYSTEM:
            raise DataError(f"{inner.place}: '{role}' is '{who}'; known: {', '.join(sorted(USER | ASSISTANT | SYSTEM))}.")
        if who not in SYSTEM:
            turns.append(("user" if who in USER else "assistant", inner.text(content)))
    return turns
