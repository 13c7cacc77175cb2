"""What benchmark files share: stable ids, the maths prompt, items."""

from __future__ import annotations

from typing import Any

from advchain.records import Item, Nature, content_id
from advchain.rows import Row

# In the user turn, no system prompt: the model card of DeepSeek-R1 asks for this sentence (METHOD 6).
MATHS_PROMPT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."


def make_item(benchmark: str, key: str | None, nature: Nature, prompt: str, **rest: Any) -> Item:
    """Return an item with the source's own id where it has one, else an id made from the prompt.

    Args:
        rest: request (default: the prompt itself), category, prefix, reference.
    """
    rest = {"request": prompt, **rest}
    return Item(id=f"{benchmark}-{key}" if key else content_id(benchmark, prompt), benchmark=benchmark, nature=nature, prompt=prompt, **rest)


def maths_item(benchmark: str, row: Row, *keys: str) -> Item:
    """Return the item of a problem with a known final answer; the first of the columns `keys` that is there gives the id."""
    problem, answer = row.text("problem", "question"), row.values.get("answer")
    # AIME answers are whole numbers in some copies and texts in others.
    text = str(answer) if isinstance(answer, int) and not isinstance(answer, bool) else row.text("answer")
    key = next((found for name in keys if (found := row.optional(name))), None)
    level = row.optional("level")
    category = " ".join(part for part in (row.optional("subject"), f"level {level}" if level else None) if part)
    prompt = MATHS_PROMPT.format(problem=problem.strip())
    return make_item(benchmark, key, "benign", prompt, request=problem.strip(), category=category, reference={"answer": text.strip()})
