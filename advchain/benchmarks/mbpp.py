"""MBPP: 500 short Python tasks of the test split (task ids 11 to 510), each with three asserts.

Source: the copy in deepseek-ai/DeepSeek-Coder of the Google research set (974 rows). Metric: pass@1 by the published asserts, which the
prompt shows, as is usual: they give the function's name. Not in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks.items import make_item
from advchain.files import Pin
from advchain.records import Item
from advchain.rows import read_rows

VERSION = 1
SHORT = "MBPP"
NATURE = "benign"
TABLE = "reasoning"
PAPER = None
JUDGES = ("code",)
ROWS = 500
SAMPLE = None
PIN = Pin(
    kind="github",
    repo="deepseek-ai/DeepSeek-Coder",
    revision="2f9fd85927c669dae3c0fbb2d607274023af243e",
    path="Evaluation/MBPP/data/mbpp.jsonl",
    sha256="ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
)
TEST_SPLIT = range(11, 511)
PROMPT = "{task}\n\nThe code must pass these tests:\n\n```python\n{tests}\n```\n\nGive the whole program in one ```python code block at the end of your answer."


def load(path: Path) -> Iterator[Item]:
    """Yield the test split of `mbpp.jsonl`."""
    for row in read_rows(path):
        if row.integer("task_id") not in TEST_SPLIT:
            continue
        task, tests = row.text("text").strip(), "\n".join(row.texts("test_list"))
        setup = row.text("test_setup_code", empty=True).strip()
        reference = {"language": "python", "mode": "asserts", "test_code": f"{setup}\n{tests}\n".lstrip("\n")}
        yield make_item("mbpp", row.optional("task_id"), "benign", PROMPT.format(task=task, tests=tests), request=task, reference=reference)
