#!/usr/bin/env python3
"""Pack a finished results folder into one tar.gz with provenance, or check one that was passed on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from advchain import cli, paths
from advchain.config import load_config
from advchain.errors import DataError
from advchain.operations.bundle import check_bundle, secrets_of, write_bundle
from advchain.operations.pages import size_text
from advchain.operations.planned import planned_specs
from advchain.operations.provenance import provenance
from advchain.operations.verify import verify
from advchain.plan import Plan

DEFAULT = Path(__file__).resolve().parent.parent / "config/config.yaml"


def write(arguments: argparse.Namespace) -> str:
    files = arguments.config or [DEFAULT]
    plan = Plan(load_config(files, json.loads(arguments.set)))
    found = verify(arguments.results, planned_specs(plan))
    first = next((problem for problem in found.problems if problem.level == "FAIL" or "drift" in problem.what), None)
    if first:
        raise DataError(
            f"bundle: {first.path} {first.what}, and {len(found.problems) - 1} more. `make verify` lists them; a bundle is made of sound results and of the "
            "config that they were made with (--config)."
        )
    out = arguments.out or Path(f"advchain-{plan.config.name}.tar.gz")
    made = write_bundle(out, arguments.results, provenance(plan, arguments.results, files), arguments.with_text, secrets_of())
    text = "prompts, chains and answers are in it: HARMFUL TEXT, pass it on with care" if arguments.with_text else "no weights, prompts, chains or answers"
    return f"{made.path}: {made.num_files} files, {size_text(made.num_bytes)}, {text}\nsha256 {made.sha256}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, metavar="BUNDLE", help="check a bundle instead of writing one; nothing is unpacked")
    parser.add_argument("--config", type=Path, nargs="*", default=[], help="config files that the results were made with; left out: config/config.yaml")
    parser.add_argument("--set", default="{}", help="settings on top of them, as JSON")
    parser.add_argument("--results", type=Path, default=Path(paths.RESULTS), help="finished results folder")
    parser.add_argument("--out", type=Path, help="file to write; left out: advchain-<name>.tar.gz")
    parser.add_argument("--with-text", action="store_true", help="also prompts, chains, responses and the explorer: harmful text")
    arguments = parser.parse_args()
    if arguments.check:
        found = check_bundle(arguments.check)
        text = f"{found.path}: sound; {found.num_files} files, {size_text(found.num_bytes)} unpacked\nsha256 {found.sha256}\n"
    else:
        text = write(arguments)
    sys.stdout.write(text)


if __name__ == "__main__":
    cli.run(main)
