#!/usr/bin/env python3
"""Let the embedded guard read every answer and injected step of a training set; what is published carries the report."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.judges.guard_report import write_guard_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="samples (JSONL)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported training set: guard.json and guard.md go into it")
    args = parser.parse_args()
    write_guard_report(args.out, args.dataset)


if __name__ == "__main__":
    cli.run(main)
