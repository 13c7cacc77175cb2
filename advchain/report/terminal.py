"""summary.md as a terminal shows it: no Markdown signs, and paths that can be clicked. Imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import Path


def terminal_text(path: Path) -> str:
    """Return the text of a summary.md for the terminal, its places as paths from where the reader stands."""
    lines = [_line(line, path.parent) for line in path.read_text(encoding="utf-8").splitlines()]
    return "\n" + "\n".join(lines) + "\n"


def _line(line: str, folder: Path) -> str:
    if re.fullmatch(r"\|[-:|]+\|", line):
        return "  " + "-" * (len(line) - 4)
    if line.startswith("|"):
        return "  " + line[2:-2].replace(" | ", "   ").rstrip()
    place = re.fullmatch(r"- ([\w./]+): (.*)", line)
    if place and (folder / place[1]).exists():
        return f"  {folder}/{place[1]}  {place[2]}"
    return line.removeprefix("# ")
