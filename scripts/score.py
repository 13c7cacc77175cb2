#!/usr/bin/env python3
"""Count verdicts: scores.csv (rates with intervals), and beside it contrasts.csv (paired differences), drift.csv and drift_curves.csv (steps of chains)."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.parallel import Workers, share_cores
from advchain.report_specs import ScoreSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=Path, required=True, help="folder with {model}/{method}/{run}/{evaluation}.jsonl of Response rows")
    parser.add_argument("--verdicts", type=Path, required=True, help="folder with {model}/{method}/{run}/{evaluation}.jsonl of Verdict rows")
    parser.add_argument("--out", type=Path, required=True, help="scores.csv to write; its manifest and contrasts.csv go beside it")
    parser.add_argument("--processes", type=int, default=1, help="models counted at a time, each in a process of its own")
    parser.add_argument("--spec", required=True, help="ScoreSpec as JSON")
    args = parser.parse_args()
    spec = cli.parse_spec(ScoreSpec, args.spec)
    processes = share_cores(args.processes, len({info.model for info in spec.checkpoints}))
    with Workers(processes, "advchain.report.scores") as workers:
        from advchain.report.cells import cell_keys, cell_paths  # here, as they import numpy and polars, while the workers do
        from advchain.report.scores import score

        keys = cell_keys(spec)
        score(args.out, spec, cell_paths(args.verdicts, keys), cell_paths(args.responses, keys), workers)


if __name__ == "__main__":
    cli.run(main)
