#!/usr/bin/env python3
"""Show the summary of a finished run in the terminal, with the paths to look at."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from advchain import cli
from advchain.errors import DataError
from advchain.report.terminal import terminal_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", type=Path, required=True, help="summary.md that the report stage wrote")
    args = parser.parse_args()
    if not args.summary.is_file():
        raise DataError(f"{args.summary}: no such file. Make it with the report rule first.")
    sys.stdout.write(terminal_text(args.summary))


if __name__ == "__main__":
    cli.run(main)
