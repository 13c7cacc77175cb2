"""MATH-500: 500 competition problems with a LaTeX answer.

Source: hub HuggingFaceH4/MATH-500. Metric: pass@1, the mean over problems; the last boxed expression of the answer part is graded.
The paper says neither decoding nor samples per problem; its base value is DeepSeek's own (METHOD 1.4, 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks.items import maths_item
from advchain.files import Pin
from advchain.records import Item
from advchain.rows import read_rows

VERSION = 1
SHORT = "MATH-500"
NATURE = "benign"
TABLE = "reasoning"
PAPER = "Math500"
MARGIN = 0.02  # equivalence margin of pass@1 (RELIABILITY 7b)
JUDGES = ("maths",)
ROWS = 500
SAMPLE = "math.jsonl"
# Commit and hash as published in other projects' lock files; the copy in the STAR-1 repository has the same problems in other bytes.
PIN = Pin(
    repo="HuggingFaceH4/MATH-500",
    revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
    path="test.jsonl",
    sha256="35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
)


def load(path: Path) -> Iterator[Item]:
    """Yield the problems of `test.jsonl`."""
    return (maths_item("math500", row, "unique_id", "id") for row in read_rows(path))
