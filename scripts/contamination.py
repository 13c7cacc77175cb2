#!/usr/bin/env python3
"""Compare one training set with every benchmark; or, with --matches, put the reports of all training sets into one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.datasets.contamination.report import write_matches, write_table
from advchain.specs import ContaminationSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, help="samples (JSONL) to compare")
    parser.add_argument("--benchmarks", nargs="*", default=[], metavar="NAME=PATH", help="whole benchmarks (Item rows)")
    parser.add_argument("--hijacked", nargs="*", default=[], metavar="NAME=PATH", help="held-out chains of an attack (Chain rows)")
    parser.add_argument("--matches", nargs="*", default=[], metavar="RECIPE=PATH", help="reports to put into one table")
    parser.add_argument("--out", type=Path, required=True, help="matches (JSONL) or table (Markdown) to write")
    parser.add_argument("--spec", help="ContaminationSpec as JSON")
    args = parser.parse_args()
    if args.matches:
        write_table(args.out, cli.named_paths("--matches", args.matches))
    elif args.dataset and args.spec:
        benchmarks, hijacked = cli.named_paths("--benchmarks", args.benchmarks), cli.named_paths("--hijacked", args.hijacked)
        write_matches(args.out, args.dataset, cli.parse_spec(ContaminationSpec, args.spec), benchmarks, hijacked)
    else:
        parser.error("give --matches, or --dataset and --spec")


if __name__ == "__main__":
    cli.run(main)
