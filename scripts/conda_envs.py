#!/usr/bin/env python3
"""Write envs/*.yaml for `--sdm conda` from the pin files: a test compares them, and this is how to mend it."""

from __future__ import annotations

from pathlib import Path

from advchain import cli
from advchain.io import write_text

ENVS = Path(__file__).resolve().parent.parent / "envs"
ROLES = {"control": "control", "train": "train", "generate": "generate-gpu"}


def conda_env(role: str) -> str:
    """The environment file of a role. Pins stand in it one by one: Snakemake copies the file elsewhere, where `-r` would find nothing."""
    file = f"{ROLES[role]}.txt"
    lines = [line for line in (ENVS / file).read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]
    head = f"""# The {role} role for `snakemake --sdm conda` and `conda env create`; the pip part is envs/{file} (`make envs` writes this file).
name: advchain-{role}
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11
  - pip=25.3
  - pip:
"""
    return head + "".join(f"      - {line}\n" for line in lines)


def main() -> None:
    for role in ROLES:
        write_text(ENVS / f"{role}.yaml", conda_env(role))


if __name__ == "__main__":
    cli.run(main)
