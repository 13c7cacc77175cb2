"""Findings as text for a terminal of 100 columns, and as JSON. Colour only where a terminal asks for none to be left out."""

from __future__ import annotations

import json
import os
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from advchain.operations.verify import Problem, Verification
from advchain.paths import RESULTS

WIDTH = 100
LEVELS = ("ok", "warn", "FAIL")
COLOURS = {"ok": "32", "warn": "33", "FAIL": "1;31", "title": "1", "quiet": "2"}
SHOWN = 40  # findings of one kind in the text; --json has all


@dataclass(frozen=True)
class Line:
    """One check: `fix` says what to do, where there is something."""

    section: str
    name: str
    level: Literal["ok", "warn", "FAIL"]
    text: str
    fix: str = ""


def paint(text: str, kind: str) -> str:
    """Return the text in a colour, for a terminal that shows any."""
    return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def wrapped(text: str, indent: int) -> str:
    """Break a text at 100 columns; all lines but the first are indented. Long paths and commands stay whole."""
    lines = textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)


def doctor_page(title: str, lines: Sequence[Line]) -> str:
    """Return all checks by section, with a sum at the end."""
    width = max(len(line.name) for line in lines)
    parts = [paint(title, "title")]
    for section, group in groupby(lines, key=lambda line: line.section):
        parts.append("\n".join([f"\n{paint(section, 'title')}", *(_line(line, width) for line in group)]))
    counts = {level: sum(line.level == level for line in lines) for level in LEVELS}
    told = ", ".join(paint(f"{count} {level}", level) for level, count in counts.items() if count)
    return "\n".join(parts) + f"\n\n{len(lines)} checks: {told}\n"


def _line(line: Line, width: int) -> str:
    indent = 2 + 6 + width + 2
    first = f"  {paint(f'{line.level:<4}', line.level)}  {line.name:<{width}}  {wrapped(line.text, indent)}"
    return first + (f"\n{' ' * (indent - 2)}{paint('>', line.level)} {wrapped(line.fix, indent)}" if line.fix else "")


def doctor_json(lines: Sequence[Line]) -> str:
    """Return {"ok": ..., "checks": [...]}."""
    return json.dumps({"ok": all(line.level != "FAIL" for line in lines), "checks": [asdict(line) for line in lines]}, indent=2) + "\n"


def size_text(num_bytes: float) -> str:
    """1234567 -> 1.2 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def verification_page(found: Verification, config: Sequence[Path] = ()) -> str:
    """Return every finding with what makes it again, and how much was read."""
    speed = f"{found.num_bytes / found.seconds / 1e9:.2f} GB/s" if found.seconds else ""
    read = f"{found.num_files} files under {found.num_manifests} manifests, {size_text(found.num_bytes)} in {found.seconds:.1f} s ({speed})"
    parts = [f"{paint(f'Verify {found.results}', 'title')}: {read}"]
    for level in ("FAIL", "warn"):
        group = [problem for problem in found.problems if problem.level == level]
        parts += [_problem(problem) for problem in group[:SHOWN]]
        parts += [f"  ... and {len(group) - SHOWN} more ({level}); --json lists all"] if len(group) > SHOWN else []
    if found.num_other_code:
        text = f"{found.num_other_code} manifests were written by other code of advchain than this; a VERSION says where it matters."
        parts.append(paint(wrapped(text, 0), "quiet"))
    return "\n".join([*parts, "", _ending(found, config)]) + "\n"


def _problem(problem: Problem) -> str:
    text = f"\n        {wrapped(problem.what + (f': {problem.advice}' if problem.advice else ''), 8)}"
    return f"  {paint(f'{problem.level:<4}', problem.level)}  {problem.path}{text}"


def _ending(found: Verification, config: Sequence[Path]) -> str:
    counts = [f"{sum(p.level == level for p in found.problems)} {level}" for level in ("FAIL", "warn") if any(p.level == level for p in found.problems)]
    if not counts:
        return paint("Every file is what its manifest says.", "ok")
    again = f"\nMake them again with\n  {again_command(found, config)}" if found.targets else ""
    return f"{', '.join(counts)}.{again}"


def again_command(found: Verification, config: Iterable[Path] = ()) -> str:
    """Return the command that makes the failed outputs again, and what depends on them; Snakemake knows them from the folder that holds results/."""
    files = [str(path) for path in config]
    settings = ["--configfile", *files] if files else []
    folder = found.results.absolute().parent
    place = [] if folder == Path.cwd() else ["--directory", str(folder)]
    targets = [f"{RESULTS}/{path.relative_to(found.results).as_posix()}" for path in found.targets]
    return shlex.join(["snakemake", "--cores", "all", *place, *settings, "-R", *targets])


def verification_json(found: Verification, config: Sequence[Path] = ()) -> str:
    """Return the findings, sizes and the command as JSON."""
    problems = [{**asdict(problem), "path": str(problem.path), "target": problem.target and str(problem.target)} for problem in found.problems]
    facts = {
        "ok": not found.failed,
        "problems": problems,
        "manifests": found.num_manifests,
        "files": found.num_files,
        "bytes": found.num_bytes,
        "seconds": round(found.seconds, 3),
        "gb_per_s": round(found.num_bytes / found.seconds / 1e9, 3) if found.seconds else None,
        "command": again_command(found, config) if found.targets else None,
    }
    return json.dumps(facts, indent=2) + "\n"
