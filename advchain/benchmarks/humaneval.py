"""HumanEval: 164 functions to complete from signature and docstring.

Source: openai/human-eval (MIT). Metric: pass@1 by the published tests. Not in the paper; STAR-1 reports it (METHOD 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advchain.benchmarks.items import make_item
from advchain.files import Pin
from advchain.records import Item
from advchain.rows import read_rows

VERSION = 1
SHORT = "HumanEval"
NATURE = "benign"
TABLE = "reasoning"
PAPER = None
JUDGES = ("code",)
ROWS = 164
SAMPLE = None
PIN = Pin(
    kind="github",
    repo="openai/human-eval",
    revision="6d43fb980f9fee3c892a914eda09951f772ad10d",
    path="data/HumanEval.jsonl.gz",
    sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
)
PROMPT = (
    "Complete this Python function. Give the whole function with its imports in one ```python code block at the end of your answer.\n\n```python\n{code}\n```"
)


def load(path: Path) -> Iterator[Item]:
    """Yield the problems of `HumanEval.jsonl.gz`."""
    for row in read_rows(path):
        name, code = row.text("entry_point"), row.text("prompt").strip("\n")
        test_code = f"{row.text('test')}\n\ncheck({name})\n"
        # The prompt is a valid program: its imports and helper functions stand before the answer, as in the official harness.
        reference = {"language": "python", "mode": "asserts", "entry_point": name, "setup_code": f"{code}\n", "test_code": test_code}
        yield make_item("humaneval", row.text("task_id"), "benign", PROMPT.format(code=code), request=code, reference=reference)
