#!/usr/bin/env python3
"""Write every table, figure, report.html and summary.md from the scores."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from advchain import cli
from advchain.errors import ConfigError
from advchain.manifests import manifest_path
from advchain.parallel import Workers
from advchain.report_specs import ReportSpec, ScoreSpec

# A figure is a web of thousands of objects: to search for garbage, again and again while it grows, takes a fifth of the time and finds some 15 MB.
gc.disable()  # here, as the workers import this file, too


def named(text: str) -> tuple[str, Path]:
    """name=path -> (name, path)."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigError(f"report: '{text}' is not name=path. Give for example star1=results/datasets/star1.jsonl.")
    return name, Path(path)


def cell_manifests(spec: ReportSpec, *folders: Path | None) -> list[Path]:
    from advchain.report.cells import cell_keys, cell_paths

    keys = cell_keys(ScoreSpec(version=spec.version, evaluations=spec.evaluations, checkpoints=spec.checkpoints))
    return [manifest_path(path) for folder in folders if folder for path in cell_paths(folder, keys).values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="scores.csv, with the other files of the score rule beside it")
    parser.add_argument("--paper", type=Path, required=True, help="the paper's numbers (config/paper_numbers.yaml)")
    parser.add_argument("--datasets", nargs="*", default=[], metavar="NAME=PATH", help="training sets, for the step-score curves")
    parser.add_argument("--chains", nargs="*", default=[], metavar="NAME=PATH", help="rewritten chains, for the step-score curves")
    parser.add_argument("--training", nargs="*", default=[], metavar="MODEL/METHOD/RUN=PATH", help="training.jsonl of each trained checkpoint")
    parser.add_argument("--manifests", nargs="*", default=[], type=Path, help="manifests and model.json files: protocol, costs, provenance")
    parser.add_argument("--responses", type=Path, help="folder of responses: the manifests of the grid's cells are read too")
    parser.add_argument("--verdicts", type=Path, help="folder of verdicts: the manifests of the grid's cells are read too")
    parser.add_argument("--agreement", type=Path, help="agreement.json of judge_report.py on labels of your own: its figures stand beside the numbers")
    parser.add_argument("--processes", type=int, default=1, help="figures drawn at a time, each in a process of its own")
    parser.add_argument("--out", type=Path, required=True, help="results folder: tables/, figures/, report.html, summary.md")
    parser.add_argument("--spec", required=True, help="ReportSpec as JSON")
    args = parser.parse_args()
    spec = cli.parse_spec(ReportSpec, args.spec)
    with Workers(args.processes, "advchain.report.build") as workers:
        from advchain.report.build import build  # here, as it imports matplotlib, while the workers do

        build(
            args.out,
            spec,
            scores=args.scores,
            paper=args.paper,
            samples=[named(text)[1] for text in [*args.datasets, *args.chains]],
            training=dict(named(text) for text in args.training),
            manifests=[*args.manifests, *cell_manifests(spec, args.responses, args.verdicts), manifest_path(args.scores)],
            agreement=args.agreement,
            workers=workers,
        )
    gc.freeze()  # nor is it searched at the end


if __name__ == "__main__":
    cli.run(main)
