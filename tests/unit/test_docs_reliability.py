"""The table of rows and tests in docs/RELIABILITY.md names every row, and only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_row_has_its_line_and_every_test_exists() -> None:
    text = (ROOT / "docs/RELIABILITY.md").read_text(encoding="utf-8")
    matrix, table = text.split("### Row by row: the tests")
    rows = set(re.findall(r"^\| ([A-G]\d+) \|", matrix, re.MULTILINE))
    named: set[str] = set()
    for line in re.findall(r"^\| ([A-G]\d.*)", table, re.MULTILINE):
        head, tests = line.split(" | ", 1)
        first, _, last = head.partition(" to ")
        named |= {f"{first[0]}{n}" for n in range(int(first[1:]), int(last[1:]) + 1)} if last else set(head.split(", "))
        for path, names in re.findall(r"(\w+/test_\w+\.py): ([\w, ]+)", tests):
            source = (ROOT / "tests" / path).read_text(encoding="utf-8")
            missing = [name for name in names.strip().split(", ") if f"def {name}(" not in source]
            assert not missing, f"{head}: {path} has no {missing}"
    assert named == rows
