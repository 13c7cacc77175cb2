#!/usr/bin/env python3
"""Mix one training set as its recipe says."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.datasets.mix import build_dataset
from advchain.specs import DatasetSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="samples to write (JSONL); manifest and rejects go beside it")
    parser.add_argument("--chains", nargs="*", default=[], metavar="NAME=PATH", help="chain sets that the recipe names")
    parser.add_argument("--sources", nargs="*", default=[], metavar="NAME=PATH", help="sources that the recipe names")
    parser.add_argument("--benchmarks", nargs="*", default=[], metavar="NAME=PATH", help="with `strict`: whole benchmarks (Item rows)")
    parser.add_argument("--hijacked", nargs="*", default=[], metavar="NAME=PATH", help="with `strict`: held-out chains of an attack (Chain rows)")
    parser.add_argument("--spec", required=True, help="DatasetSpec as JSON")
    args = parser.parse_args()
    files = {name: cli.named_paths(f"--{name}", getattr(args, name)) for name in ("chains", "sources", "benchmarks", "hijacked")}
    build_dataset(args.out, cli.parse_spec(DatasetSpec, args.spec), **files)


if __name__ == "__main__":
    cli.run(main)
