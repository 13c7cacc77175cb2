"""Fixtures that several modules share: a report takes seconds to make."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_grid import ROOT, make

from advchain.report.build import build


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report of the grid of `make`."""
    root = tmp_path_factory.mktemp("report")
    out = root / "results"
    _, spec = make(root, out)
    build(
        out,
        spec,
        scores=out / "scores.csv",
        paper=ROOT / "config/paper_numbers.yaml",
        samples=[root / "advchain.jsonl"],
        training={"r1/advchain/seed0": root / "training.jsonl"},
        manifests=[out / "scores.manifest.json", *sorted(root.glob("verdicts/*/*/*/*.manifest.json"))],
    )
    return out
