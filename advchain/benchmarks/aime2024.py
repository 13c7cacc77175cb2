"""AIME 2024: the 30 problems of both papers; every answer is a whole number from 0 to 999.

Source: the copy in UCSC-VLAA/STAR-1, whose commit and hash are known (the hub's HuggingFaceH4/aime_2024 holds the same problems).
Metric: pass@1 over many samples; with 30 problems the problem-sampling error alone is about 9 points at 50 per cent (METHOD 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks.items import maths_item
from advchain.errors import DataError
from advchain.files import Pin
from advchain.records import Item
from advchain.rows import read_rows

VERSION = 1
SHORT = "AIME 2024"
NATURE = "benign"
TABLE = "reasoning"
PAPER = "AIME2024"
MARGIN = 0.05  # equivalence margin of pass@1 (RELIABILITY 7b)
JUDGES = ("maths",)
ROWS = 30
SAMPLE = "aime.jsonl"
PIN = Pin(
    kind="github",
    repo="UCSC-VLAA/STAR-1",
    revision="b49333598887845f148ed1b4d2576dc2bff7581a",
    path="benchmark/reasoning_benchmark/datasets/AIME/test.jsonl",
    sha256="e930dc454d55c88967860d7acbf4a1550cfbab0634d3caa516cf74172ce75c6a",
)


def load(path: Path) -> Iterator[Item]:
    """Yield the problems.

    Raises:
        DataError: an answer is not a whole number from 0 to 999.
    """
    for row in read_rows(path):
        item = maths_item("aime2024", row, "id")
        answer = item.reference["answer"]
        if not (answer.isdigit() and int(answer) <= 999):
            raise DataError(f"{row.place}, column 'answer': '{answer}' is not a whole number from 0 to 999. Is this an AIME file?")
        yield item
