#!/usr/bin/env python3
"""Print how a sample was made, call by call; the texts (of harmful rows) only where ADVCHAIN_SHOW_TEXT=1 is set."""

import argparse
import os
import sys
from pathlib import Path

from advchain.chains.trace import describe, find_row
from advchain.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", type=Path, help="results/.work/teacher/<chains>.calls.jsonl")
    parser.add_argument("row", help="id of a source row or of a sample")
    arguments = parser.parse_args()
    for line in describe(find_row(arguments.calls, arguments.row), os.environ.get("ADVCHAIN_SHOW_TEXT") == "1"):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    run(main)
