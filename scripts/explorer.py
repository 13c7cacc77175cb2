#!/usr/bin/env python3
"""Make the page to look into single chains: training samples, and answers of two checkpoints side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.explorer.build import build_explorer
from advchain.report_specs import ReportSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=Path, required=True, help="folder with {model}/{method}/{run}/{evaluation}.jsonl of Response rows")
    parser.add_argument("--verdicts", type=Path, required=True, help="folder with {model}/{method}/{run}/{evaluation}.jsonl of Verdict rows")
    parser.add_argument("--samples", nargs="*", default=[], metavar="NAME=PATH", help="training sets (Sample rows)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make: index.html and data/")
    parser.add_argument("--spec", required=True, help="ReportSpec as JSON")
    args = parser.parse_args()
    build_explorer(args.out, cli.parse_spec(ReportSpec, args.spec), args.responses, args.verdicts, cli.named_paths("--samples", args.samples))


if __name__ == "__main__":
    cli.run(main)
