#!/usr/bin/env python3
"""Check that a results folder is what was written: hashes, truncated and half-written files, files without manifest, code and config drift."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from advchain import cli, paths
from advchain.config import load_config
from advchain.manifests import code_hash
from advchain.operations.pages import verification_json, verification_page
from advchain.operations.planned import planned_specs
from advchain.operations.verify import verify
from advchain.plan import Plan

DEFAULT = Path(__file__).resolve().parent.parent / "config/config.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Exit code: 0 sound (drift is only told), 1 something has to be made again.")
    parser.add_argument("--config", type=Path, nargs="*", default=[], help="config files, later ones win; left out: config/config.yaml")
    parser.add_argument("--set", default="{}", help="settings on top of them, as JSON")
    parser.add_argument("--results", type=Path, default=Path(paths.RESULTS), help="folder to check")
    parser.add_argument("--no-drift", action="store_true", help="hashes only: do not compare with what the config would make today")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    arguments = parser.parse_args()
    plan = None if arguments.no_drift else Plan(load_config(arguments.config or [DEFAULT], json.loads(arguments.set)))
    found = verify(arguments.results, planned_specs(plan) if plan else None, code_hash())
    show = verification_json if arguments.json else verification_page
    sys.stdout.write(show(found, arguments.config))
    sys.exit(1 if found.failed else 0)


if __name__ == "__main__":
    cli.run(main)
