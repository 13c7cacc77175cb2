"""XSTest, safe prompts: 250 harmless questions that share words with harmful ones.

Source: paul-rottger/exaggerated-safety (CC-BY-4.0). Metric: ORR, the share refused. n = 250, which fits every value in the paper
(METHOD 1.4). STAR-benign-915 holds rewrites of the same kind: near its training distribution (METHOD 7.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks.items import make_item
from advchain.errors import DataError
from advchain.files import Pin
from advchain.records import Item, Nature
from advchain.rows import read_rows

VERSION = 1
SHORT = "XSTest"
NATURE = "benign"
TABLE = "over_refusal"
PAPER = "XSTest"
JUDGES = ("refusal_phrases",)
ROWS = 250
SAMPLE = "xstest.jsonl"
PIN = Pin(
    kind="github",
    repo="paul-rottger/exaggerated-safety",
    revision="d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d",
    path="xstest_prompts.csv",
    sha256="11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
)


def load(path: Path) -> Iterator[Item]:
    """Yield the prompts labelled safe."""
    return select(path, "xstest", "safe", "benign")


def select(path: Path, benchmark: str, wanted: str, nature: Nature) -> Iterator[Item]:
    """Yield the prompts of one label."""
    for row in read_rows(path):
        label = row.text("label")
        if label not in ("safe", "unsafe"):
            raise DataError(f"{row.place}, column 'label': '{label}'; known: safe, unsafe.")
        if label == wanted:
            yield make_item(benchmark, row.optional("id"), nature, row.text("prompt"), category=row.text("type", "category"))
