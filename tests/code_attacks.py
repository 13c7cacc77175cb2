"""Attacks on the sandbox, shared by its tests and its measurement, and how to see what they leave behind."""

from __future__ import annotations

from pathlib import Path


def read_attacks() -> dict[str, tuple[str, set[str]]]:
    """Return name -> (code of a function, outcomes that count as stopped) of tests/golden/attacks.txt; {secret} and {port} are to be filled in."""
    text = (Path(__file__).parent / "golden/attacks.txt").read_text(encoding="utf-8")
    sections = [section.split("\n", 1) for section in text.split("### ")[1:]]
    return {head.split(" | ")[0]: (code, set(head.split(" | ")[1].split())) for head, code in sections}


ATTACKS = read_attacks()

# Whole programs that read "3" and should write "4": program -> outcomes that count as stopped.
PROGRAM_ATTACKS = {
    "print('x' * (200 << 20))": {"output", "memory", "fail"},
    "import sys\nwhile True:\n    try: sys.stdout.write('x' * 65536)\n    except: pass": {"output"},
    "import sys\nwhile True:\n    try: sys.stderr.write('x' * 65536)\n    except: pass": {"timeout"},
    "print(4)\nimport sys\nsys.exit(1)": {"fail"},
    "import os\nos._exit(0)": {"fail"},
    "while True: pass": {"timeout"},
    "x = bytearray(3 << 30)": {"memory"},
    "import ctypes\nctypes.string_at(0)": {"crash"},
    "import os, time\nprint(4, flush=True)\nif os.fork() == 0:\n    os.setsid()\n    while True: time.sleep(1)": {"pass"},
}


def sandboxed_processes() -> set[int]:
    """Processes of the sandbox: bubblewrap itself and everything that runs a script of /box."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"/box/" in words:
                found.add(int(entry.name))
    return found
