#!/usr/bin/env python3
"""Write the responses of one checkpoint to one evaluation from the store of finished answers."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.generate.run import write_responses
from advchain.specs import GenerateSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True, help="items of the evaluation (JSONL)")
    parser.add_argument("--store", type=Path, required=True, help="store that generate.py filled")
    parser.add_argument("--checkpoint", type=Path, required=True, help="model folder with model.json")
    parser.add_argument("--out", type=Path, required=True, help="Response rows to write (JSONL)")
    parser.add_argument("--evaluation", required=True, help="name of the evaluation in the spec")
    parser.add_argument("--spec", required=True, help="GenerateSpec as JSON")
    arguments = parser.parse_args()
    spec = cli.parse_spec(GenerateSpec, arguments.spec)
    write_responses(arguments.prompts, arguments.store, arguments.checkpoint, arguments.out, spec, arguments.evaluation)


if __name__ == "__main__":
    cli.run(main)
