"""Mend what is wrong with the form of a step and not with its content, before it is judged: cheaper than asking again, and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

LABEL = re.compile(r"^\W*(?:(?:step|paragraph|thought)(?: \d+)?|(?:wrong turn|doubt|reply|answer|output))\W*:\W*\s+", re.IGNORECASE)
BOLD = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
HEADING = re.compile(r"^#{1,6}\s+[^\n]{1,80}\n+")
PAIRS = ('""', "''", "\u201c\u201d", "\u2018\u2019")


def without_heading(text: str) -> str:
    """Drop a Markdown heading above the paragraph."""
    return HEADING.sub("", text)


def without_label(text: str) -> str:
    """Drop "Step 3:" or "Paragraph:" in front."""
    return LABEL.sub("", text)


def without_bold(text: str) -> str:
    """Drop Markdown's bold marks."""
    return BOLD.sub(r"\2", text)


def without_quotes(text: str) -> str:
    """Drop quotation marks around the whole text."""
    wrapped = any(len(text) > 2 and text[0] == pair[0] and text[-1] == pair[1] and not (set(pair) & set(text[1:-1])) for pair in PAIRS)
    return text[1:-1] if wrapped else text


def capital(text: str) -> str:
    """Start with a capital letter."""
    return text[:1].upper() + text[1:]


REPAIRS: dict[str, Callable[[str], str]] = {
    "heading": without_heading,
    "label": without_label,
    "bold": without_bold,
    "quotes": without_quotes,
    "capital": capital,
}


def repair_step(text: str, counts: Counter[str]) -> str:
    """Return the text with its form mended; `counts` gains one per kind of repair made."""
    for name, mend in REPAIRS.items():
        mended = mend(text.strip()).strip()
        counts[name] += mended != text.strip()
        text = mended
    return text


def repair_seam(text: str, counts: Counter[str]) -> str:
    """Return a connective as a whole sentence: capital letter, full stop."""
    seam = capital(text.strip())
    if seam and seam[-1].isalpha():
        seam += "."
    elif seam.endswith(","):
        seam = seam[:-1] + "."
    counts["seam"] += seam != text.strip()
    return seam
