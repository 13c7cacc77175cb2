#!/usr/bin/env python3
"""Judge the responses of one checkpoint to one or more evaluations that have the same judges, and write verdict rows."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain.cli import parse_spec, run
from advchain.errors import ConfigError
from advchain.judges.run import judge_files
from advchain.specs import JudgeStageSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=Path, nargs="+", required=True, help="response rows (JSONL), e.g. results/responses/m/advchain/seed1/xstest.jsonl")
    parser.add_argument("--out", type=Path, nargs="+", required=True, help="verdict rows to write (JSONL), a file for each; rejects and manifest go beside it")
    parser.add_argument("--work", type=Path, required=True, help="folder for what survives a kill: paid replies, verdicts of costly judges")
    parser.add_argument("--spec", nargs="+", required=True, help="one JudgeStageSpec as JSON for each: version, benchmark, nature, judges, max_unparsed_share")
    arguments = parser.parse_args()
    if not len(arguments.responses) == len(arguments.out) == len(arguments.spec):
        raise ConfigError("judge.py: --responses, --out and --spec take as many values each: one per evaluation.")
    specs = [parse_spec(JudgeStageSpec, text) for text in arguments.spec]
    judge_files(list(zip(arguments.responses, arguments.out, specs, strict=True)), arguments.work)


if __name__ == "__main__":
    run(main)
