"""Your own harmless prompts: the same columns as `file`.

Metric: ORR, the share of harmless prompts refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks import file
from advchain.records import Item

VERSION = 1
SHORT = "Own harmless prompts"
NATURE = "benign"
TABLE = "over_refusal"
PAPER = None
JUDGES = ("refusal_phrases",)
ROWS = None
SAMPLE = None
PIN = None


def load(path: Path) -> Iterator[Item]:
    """Yield one item per row."""
    return file.select(path, "file_benign", "benign")
