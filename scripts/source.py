#!/usr/bin/env python3
"""Read one source data set into chains."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.sources.read import read_source
from advchain.specs import SourceSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="chains to write (JSONL); its manifest and rejects go beside it")
    parser.add_argument("--downloads", type=Path, required=True, help="folder that keeps fetched files")
    parser.add_argument("--spec", required=True, help="SourceSpec as JSON")
    args = parser.parse_args()
    read_source(args.out, cli.parse_spec(SourceSpec, args.spec), args.downloads)


if __name__ == "__main__":
    cli.run(main)
