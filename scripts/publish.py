#!/usr/bin/env python3
"""Upload one exported training set to the hub; refuses unless the config says where to and whether it is private."""

from __future__ import annotations

import argparse
from pathlib import Path

from advchain import cli
from advchain.datasets.publish import publish
from advchain.specs import PublishSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="exported training set")
    parser.add_argument("--out", type=Path, required=True, help="record of the upload to write (JSON)")
    parser.add_argument("--spec", required=True, help="PublishSpec as JSON")
    args = parser.parse_args()
    publish(args.out, args.folder, cli.parse_spec(PublishSpec, args.spec))


if __name__ == "__main__":
    cli.run(main)
