"""Your own harmful prompts: CSV, TSV, JSONL, JSON list or parquet with a prompt column, optionally id, request, category.

Metric: ASR and RR of the answer. `request` is the plain request underneath a wrapped prompt; judges see it. For harmless prompts use
`file_benign`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks.items import make_item
from advchain.records import Item, Nature
from advchain.rows import read_rows

VERSION = 1
SHORT = "Own harmful prompts"
NATURE = "harmful"
TABLE = "safety"
PAPER = None
JUDGES = ("string_match", "refusal_phrases")
ROWS = None
SAMPLE = None
PIN = None


def load(path: Path) -> Iterator[Item]:
    """Yield one item per row."""
    return select(path, "file", "harmful")


def select(path: Path, benchmark: str, nature: Nature) -> Iterator[Item]:
    """Yield one item per row with a prompt column."""
    for row in read_rows(path):
        prompt = row.text("prompt")
        request = row.optional("request") or prompt
        yield make_item(benchmark, row.optional("id"), nature, prompt, request=request, category=row.optional("category") or "")
