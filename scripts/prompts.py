#!/usr/bin/env python3
"""Write the prompts of one benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.benchmarks.read import read_prompts
from advchain.specs import PromptsSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="items to write (JSONL); its manifest goes beside it")
    parser.add_argument("--downloads", type=Path, required=True, help="folder that keeps fetched files")
    parser.add_argument("--spec", required=True, help="PromptsSpec as JSON")
    args = parser.parse_args()
    read_prompts(args.out, cli.parse_spec(PromptsSpec, args.spec), args.downloads)


if __name__ == "__main__":
    cli.run(main)
