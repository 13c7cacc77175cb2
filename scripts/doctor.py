#!/usr/bin/env python3
"""Check that this machine is ready for a config: environments, GPUs, memory, disk, keys by name, gated access, sandbox, SLURM."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from advchain import cli, paths
from advchain.operations.doctor import examine, title
from advchain.operations.pages import doctor_json, doctor_page

DEFAULT = Path(__file__).resolve().parent.parent / "config/config.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Exit code: 0 ready (warnings may stand), 1 something has to be mended first.")
    parser.add_argument("--config", type=Path, nargs="*", default=[], help="config files, later ones win; left out: config/config.yaml")
    parser.add_argument("--set", default="{}", help="settings on top of them, as JSON")
    parser.add_argument("--results", type=Path, default=Path(paths.RESULTS), help="where results will be written")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    arguments = parser.parse_args()
    logging.getLogger("advchain").setLevel(logging.ERROR)  # the lines say it all
    files = arguments.config or [DEFAULT]
    lines = examine(files, json.loads(arguments.set), arguments.results)
    sys.stdout.write(doctor_json(lines) if arguments.json else doctor_page(title(files), lines))
    sys.exit(1 if any(line.level == "FAIL" for line in lines) else 0)


if __name__ == "__main__":
    cli.run(main)
