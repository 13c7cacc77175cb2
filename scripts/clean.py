#!/usr/bin/env python3
"""List what a stage made, with sizes, and delete it with --yes. Bought teacher and judge answers go only when `answers` is named."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from advchain import cli, paths
from advchain.operations.clean import ALL, BOUGHT, STAGES, delete, doomed, stages_of
from advchain.operations.pages import size_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", metavar="STAGE", help=f"{', '.join(STAGES)}; or {ALL}, which is all of them but {BOUGHT}")
    parser.add_argument("--results", type=Path, default=Path(paths.RESULTS), help="results folder")
    parser.add_argument("--yes", action="store_true", help="delete; without it nothing is touched")
    arguments = parser.parse_args()
    items = doomed(arguments.results, arguments.stages)
    out = sys.stdout
    for item in items:
        stages = ", ".join(stages_of(item.path, arguments.results)) or "logs"
        out.write(f"{size_text(item.num_bytes):>10}  {item.num_files:>6} files  {item.path}  ({stages})\n")
    total = f"{size_text(sum(item.num_bytes for item in items))} in {sum(item.num_files for item in items)} files"
    kept = [path for name in STAGES[BOUGHT] if BOUGHT not in arguments.stages and (path := arguments.results / name).exists()]
    if ALL in arguments.stages and kept:
        out.write(f"Kept: {', '.join(map(str, kept))} (answers that were bought or took long; `clean.py {BOUGHT}` takes them).\n")
    if not items:
        out.write("Nothing of it is there.\n")
    elif arguments.yes:
        delete(items)
        out.write(f"Deleted {total}.\n")
    else:
        out.write(f"Would delete {total}. Nothing was touched: add --yes.\n")


if __name__ == "__main__":
    cli.run(main)
