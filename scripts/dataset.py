#!/usr/bin/env python3
"""Mix one training set as its recipe says, and write its card."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.datasets.mix import build_dataset
from advchain.errors import ConfigError
from advchain.specs import DatasetSpec, parse_spec


def named_paths(option: str, values: list[str]) -> dict[str, Path]:
    """Read `name=path` arguments."""
    for value in values:
        if "=" not in value:
            raise ConfigError(f"{option}: '{value}' is not name=path.")
    return {name: Path(path) for name, _, path in (value.partition("=") for value in values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="samples to write (JSONL); its manifest goes beside it")
    parser.add_argument("--card", type=Path, required=True, help="card to write (Markdown)")
    parser.add_argument("--chains", nargs="*", default=[], metavar="NAME=PATH", help="chain sets that the recipe names")
    parser.add_argument("--sources", nargs="*", default=[], metavar="NAME=PATH", help="sources that the recipe names")
    parser.add_argument("--prompts", nargs="*", default=[], type=Path, help="benchmark prompts to look for in the training set")
    parser.add_argument("--spec", required=True, help="DatasetSpec as JSON")
    args = parser.parse_args()
    spec = parse_spec(DatasetSpec, args.spec)
    build_dataset(args.out, args.card, spec, named_paths("--chains", args.chains), named_paths("--sources", args.sources), args.prompts)


if __name__ == "__main__":
    cli.run(main)
