#!/usr/bin/env python3
"""Compare judges with people's labels and write agreement.json and agreement.tsv: per judge, set and attack method."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from advchain.catalogue import CONFIG, modules
from advchain.cli import run
from advchain.config import load_config
from advchain.errors import ConfigError
from advchain.files import expand_variables
from advchain.io import sha256_file, write_json, write_text
from advchain.judges.compare import COLUMNS, STORED, agreement_rows, offline_readings, read_with, stored_readings
from advchain.judges.guard.labelled import files_of, read_own, read_sets
from advchain.manifests import make_manifest, write_manifest
from advchain.plan import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with the public labelled sets (docs/JUDGES.md), or a CSV of yours: id, prompt, response, label")
    parser.add_argument("--judges", nargs="*", default=[], help="further judges of config/judges.yaml (weights or keys are needed as in a run)")
    parser.add_argument("--out", type=Path, required=True, help="folder for agreement.json and agreement.tsv")
    arguments = parser.parse_args()
    data = Path(expand_variables(arguments.data, "judge_report")) if arguments.data else None
    if data is None or not data.exists():
        raise ConfigError(f"judge_report: there is no folder or file '{arguments.data}'. Set evaluation.judge_data (or --data) to labelled sets or a CSV.")
    rows = read_own(data) if data.is_file() else read_sets(data)
    with tempfile.TemporaryDirectory(prefix="advchain-judges-") as work:
        readings = [*offline_readings(rows, Path(work)), *stored_readings(rows)]
        plan = Plan(load_config([CONFIG / "config.yaml"]))
        readings += [read_with(plan.judge_spec(name), rows, Path(work)) for name in arguments.judges]
    found = agreement_rows(rows, readings)
    files = [data] if data.is_file() else [path for paths in files_of(data).values() for path in paths]
    digests = {path.name if data.is_file() else str(path.relative_to(data)): sha256_file(path) for path in files}
    read = dict.fromkeys(reading.judge for reading in readings if reading.protocol != STORED)
    versions = {name: modules("judges")[name].version for name in read if name in modules("judges")}
    value = {"command": "scripts/judge_report.py --data $ADVCHAIN_DATA", "data": digests, "versions": versions, "rows": found}
    write_json(arguments.out / "agreement.json", value)
    cells = [[("" if row[name] is None else str(row[name])) for name in COLUMNS] for row in found]
    write_text(arguments.out / "agreement.tsv", "\n".join("\t".join(line) for line in [list(COLUMNS), *cells]) + "\n")
    manifest = make_manifest("judge_report", {"judges": arguments.judges}, files)
    write_manifest(arguments.out / "agreement.manifest.json", manifest, [arguments.out / "agreement.json", arguments.out / "agreement.tsv"])


if __name__ == "__main__":
    run(main)
