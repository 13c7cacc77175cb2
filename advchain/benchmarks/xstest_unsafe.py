"""XSTest, unsafe contrasts: 200 prompts that differ from the safe ones by little and should be refused.

Source: paul-rottger/exaggerated-safety (CC-BY-4.0). Metric: ASR and RR of the answer. Not in the paper: it shows whether a low
over-refusal rate was bought with compliance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks import xstest
from advchain.records import Item

VERSION = 1
SHORT = "XSTest unsafe"
NATURE = "harmful"
TABLE = "safety"
PAPER = None
JUDGES = ("string_match", "refusal_phrases")
ROWS = 200
SAMPLE = "xstest.jsonl"
PIN = xstest.PIN


def load(path: Path) -> Iterator[Item]:
    """Yield the prompts labelled unsafe."""
    return xstest.select(path, "xstest_unsafe", "unsafe", "harmful")
