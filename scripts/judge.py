#!/usr/bin/env python3
"""Judge the responses of one checkpoint to one evaluation and write verdict rows."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain.cli import run
from advchain.judges.run import judge_responses
from advchain.specs import JudgeStageSpec, parse_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=Path, required=True, help="Response rows (JSONL), e.g. results/responses/<model>/<method>/<run>/xstest.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="Verdict rows to write (JSONL); rejects and manifest go beside it")
    parser.add_argument("--work", type=Path, required=True, help="folder for what survives a kill: paid replies, verdicts of costly judges")
    parser.add_argument("--spec", required=True, help="JudgeStageSpec as JSON: version, benchmark, nature, judges, max_unparsed_share")
    arguments = parser.parse_args()
    judge_responses(arguments.responses, arguments.out, parse_spec(JudgeStageSpec, arguments.spec), arguments.work)


if __name__ == "__main__":
    run(main)
