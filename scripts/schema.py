#!/usr/bin/env python3
"""Write config/schema.json, the JSON Schema of the config for editors, from the typed config."""

from pathlib import Path

from advchain import cli
from advchain.config import json_schema
from advchain.io import write_json


def main() -> None:
    write_json(Path(__file__).resolve().parent.parent / "config" / "schema.json", json_schema())


if __name__ == "__main__":
    cli.run(main)
