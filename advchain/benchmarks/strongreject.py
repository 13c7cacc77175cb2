"""StrongREJECT: 313 forbidden prompts that a capable model can answer harmfully.

Source: alexandrasouly/strongreject (MIT). Metric: ASR and RR of the answer. All 313 are used; the paper's percentages fit a subset of
200 that nobody published (METHOD 1.4). None is a STAR-1 question. The official rubric score is a judge's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks.items import make_item
from advchain.files import Pin
from advchain.records import Item
from advchain.rows import read_rows

VERSION = 1
SHORT = "StrongREJECT"
NATURE = "harmful"
TABLE = "safety"
PAPER = "StrongReject"
JUDGES = ("string_match", "refusal_phrases")
ROWS = 313
SAMPLE = "strongreject.jsonl"
PIN = Pin(
    kind="github",
    repo="alexandrasouly/strongreject",
    revision="f7cad6c17e624e21d8df2278e918ae1dddb4cb56",
    path="strongreject_dataset/strongreject_dataset.csv",
    sha256="4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
)


def load(path: Path) -> Iterator[Item]:
    """Yield the prompts of the published CSV, or of a file with prompt and category. The CSV has no ids: they are made from content."""
    for row in read_rows(path):
        yield make_item("strongreject", row.optional("id"), "harmful", row.text("forbidden_prompt", "prompt"), category=row.optional("category") or "")
