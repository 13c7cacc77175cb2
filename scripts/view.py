#!/usr/bin/env python3
"""Write what judges read where that is not the answer: the chain, or chain and answer."""

import argparse
from pathlib import Path

from advchain.cli import parse_spec, run
from advchain.generate.view import write_view
from advchain.specs import ViewSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=Path, required=True, help="response rows (JSONL)")
    parser.add_argument("--out", type=Path, required=True, help="response rows whose answer is what judges read (JSONL)")
    parser.add_argument("--spec", required=True, help="ViewSpec as JSON")
    arguments = parser.parse_args()
    write_view(arguments.responses, arguments.out, parse_spec(ViewSpec, arguments.spec))


if __name__ == "__main__":
    run(main)
