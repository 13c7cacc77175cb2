"""Tables in Markdown, for cards and reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table, "None." where it has no rows; pipes and line breaks in cells are made harmless."""
    lines = [head, ["---"] * len(head), *rows]
    if len(lines) == 2:
        return "None."
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)
