"""HarmBench, all 400 behaviours: standard, copyright and contextual, to compare training sets with.

Source: centerforaisafety/HarmBench (MIT). Not an evaluation set: 30 of the 100 copyright behaviours and 2 of the 200 standard ones are
STAR-1 questions (METHOD 7.4). Metric: as `harmbench`, which is the one to evaluate on. The category is the functional one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks import harmbench
from advchain.benchmarks.items import make_item
from advchain.records import Item
from advchain.rows import read_rows

VERSION = 1
SHORT = "HarmBench (all)"
NATURE = "harmful"
TABLE = "safety"
PAPER = None
JUDGES = ("string_match", "refusal_phrases")
ROWS = 400
SAMPLE = None
PIN = harmbench.PIN


def load(path: Path) -> Iterator[Item]:
    """Yield every behaviour of `harmbench_behaviors_text_all.csv`."""
    for row in read_rows(path):
        yield make_item("harmbench_all", row.text("BehaviorID"), "harmful", row.text("Behavior"), category=row.text("FunctionalCategory"))
