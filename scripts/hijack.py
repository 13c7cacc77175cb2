#!/usr/bin/env python3
"""Write the prompts of an attack on the chain of thought: safe chains, cut and turned by one thought of an attack teacher."""

import argparse
from pathlib import Path

from advchain.attacks.build import build_hijack
from advchain.cli import run
from advchain.specs import PromptsSpec, parse_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="items to write (JSONL)")
    parser.add_argument("--work", type=Path, required=True, help="folder for the store of the teacher's answers, kept between runs")
    parser.add_argument("--spec", required=True, help="PromptsSpec with an attack, as JSON")
    parser.add_argument("--source", type=Path, help="held-out chains to start from (JSONL)")
    parser.add_argument("--responses", type=Path, nargs="*", default=[], help="or: a reference model's responses (JSONL)")
    parser.add_argument("--verdicts", type=Path, nargs="*", default=[], help="the verdicts on these responses (JSONL)")
    arguments = parser.parse_args()
    spec = parse_spec(PromptsSpec, arguments.spec)
    build_hijack(arguments.out, spec, source=arguments.source, responses=arguments.responses, verdicts=arguments.verdicts, work=arguments.work)


if __name__ == "__main__":
    run(main)
