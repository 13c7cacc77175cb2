#!/usr/bin/env python3
"""Write the card of one training set: contents, lengths, yield, rejects, cost, overlap with benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.datasets.card import write_card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="samples (JSONL) with their manifest")
    parser.add_argument("--matches", type=Path, required=True, help="matches (JSONL) of the contamination report with their manifest")
    parser.add_argument("--chains", nargs="*", default=[], metavar="NAME=PATH", help="chain sets that it was mixed from")
    parser.add_argument("--sources", nargs="*", default=[], metavar="NAME=PATH", help="sources that it and its chain sets were made from")
    parser.add_argument("--out", type=Path, required=True, help="card to write (Markdown)")
    args = parser.parse_args()
    write_card(args.out, args.dataset, cli.named_paths("--chains", args.chains), cli.named_paths("--sources", args.sources), args.matches)


if __name__ == "__main__":
    cli.run(main)
