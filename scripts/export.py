#!/usr/bin/env python3
"""Write one training set in the format of the `datasets` library: parquet, data card, and an entry for LLaMA-Factory."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.datasets.export import export
from advchain.specs import ExportSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="samples (JSONL)")
    parser.add_argument("--card", type=Path, required=True, help="card of the training set (Markdown)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--spec", required=True, help="ExportSpec as JSON")
    args = parser.parse_args()
    export(args.out, args.dataset, args.card, cli.parse_spec(ExportSpec, args.spec))


if __name__ == "__main__":
    cli.run(main)
