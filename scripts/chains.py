#!/usr/bin/env python3
"""Rewrite source chains into temptation-correction or hesitation-correction samples with a teacher."""

import argparse
from pathlib import Path

from advchain.chains.build import build_chains
from advchain.cli import parse_spec, run
from advchain.specs import ChainsSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="chains to rewrite (JSONL)")
    parser.add_argument("--out", type=Path, required=True, help="samples to write (JSONL)")
    parser.add_argument("--work", type=Path, required=True, help="folder for the store of the teacher's answers, kept between runs")
    parser.add_argument("--spec", required=True, help="ChainsSpec as JSON")
    arguments = parser.parse_args()
    build_chains(arguments.source, arguments.out, parse_spec(ChainsSpec, arguments.spec), arguments.work)


if __name__ == "__main__":
    run(main)
