#!/usr/bin/env python3
"""Write the prompts of an attack: what is asked, and what is forced in front of the target's own words."""

import argparse
from pathlib import Path

from advchain.attacks.build import Inputs, build_attack
from advchain.cli import parse_spec, run
from advchain.specs import PromptsSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="items to write (JSONL)")
    parser.add_argument("--work", type=Path, required=True, help="folder for the store of the teacher's answers, kept between runs")
    parser.add_argument("--spec", required=True, help="PromptsSpec with an attack, as JSON")
    parser.add_argument("--source", type=Path, help="held-out chains to start from (JSONL)")
    parser.add_argument("--responses", type=Path, nargs="*", default=[], help="or: a model's responses (JSONL)")
    parser.add_argument("--verdicts", type=Path, nargs="*", default=[], help="the verdicts on these responses (JSONL)")
    parser.add_argument("--items", type=Path, nargs="*", default=[], help="or: prompts of benchmarks or of another attack (JSONL)")
    arguments = parser.parse_args()
    inputs = Inputs(arguments.source, arguments.responses, arguments.verdicts, arguments.items)
    build_attack(arguments.out, parse_spec(PromptsSpec, arguments.spec), inputs, arguments.work)


if __name__ == "__main__":
    run(main)
