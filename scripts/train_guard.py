#!/usr/bin/env python3
"""Train the embedded guard from people's labels and write its weights and its held-out probabilities (numbers and row ids, no text)."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from advchain.cli import run
from advchain.io import sha256_file, write_json
from advchain.judges.guard import held_out, training
from advchain.judges.guard.labelled import Labelled, files_of, read_sets
from advchain.judges.guard.model import HEADS, WEIGHTS, save_heads

log = logging.getLogger(__name__)
HERE = Path(held_out.__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the labelled files (docs/JUDGES.md), e.g. $ADVCHAIN_DATA")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for weights.npz and held_out.json; default: the package's own")
    parser.add_argument("--only-weights", action="store_true", help="reuse held_out.json's calibration and train the two heads only")
    arguments = parser.parse_args()
    started = time.monotonic()
    rows = read_sets(arguments.data)
    design = training.make_design(rows)
    log.info("guard: %d rows read", len(design.rows))
    known = json.loads((HERE / "held_out.json").read_text()) if arguments.only_weights else evaluate(rows, design, arguments.data)
    heads = {kind: training.train_head(design, kind, known["slopes"][kind]) for kind in HEADS}
    save_heads(arguments.out / WEIGHTS, heads)
    if not arguments.only_weights:
        write_json(arguments.out / "held_out.json", known)
    print(json.dumps({"rows": len(design.rows), "seconds": round(time.monotonic() - started, 1), "slopes": known["slopes"]}))  # noqa: T201


def evaluate(rows: Sequence[Labelled], design: training.Design, data: Path) -> dict[str, object]:
    """Held-out probabilities by protocol and row id, calibration slopes, digests of the data."""
    space = training.light(training.factor(design, training.FORM_SHARE))
    told = design.restrict("harmbench", "gptfuzz")
    grouped, chosen = held_out.nested_harm(told)
    log.info("guard: nested cross-validation chose %s", chosen)
    alone, _ = held_out.nested_harm(design.restrict("harmbench"), auxiliary=False)
    refusals = held_out.held_out_xstest(design, space)
    found = {
        "harm": {
            "unseen questions and models": by_id(told, grouped),
            "unseen questions and models, HarmBench alone": by_id(design.restrict("harmbench"), alone),
            "trained without HarmBench": by_id(design, held_out.across_sets(design, space, "harm", "harmbench")),
            "trained without GPTFuzz": {name: round(value, 4) for name, value in held_out.all_of_gptfuzz(rows).items()},
        },
        "refusal": {
            "unseen prompts and models": by_id(design, refusals),
            "trained without XSTest": by_id(design, held_out.across_sets(design, space, "refusal", "xstest")),
            "trained without PyRIT": by_id(design, held_out.across_sets(design, space, "refusal", "pyrit")),
        },
    }
    mine, theirs = ~np.isnan(grouped), ~np.isnan(refusals)
    slopes = {
        "harm": held_out.calibration_slope(told.harmful[mine], grouped[mine]),
        "refusal": held_out.calibration_slope(design.refused[theirs], refusals[theirs]),
    }
    digests = {str(path.relative_to(data)): sha256_file(path) for files in files_of(data).values() for path in files}
    choices = {f"form {share}, penalty {penalty}": count for (share, penalty), count in chosen.items()}
    return {"command": "scripts/train_guard.py --data $ADVCHAIN_DATA", "data": digests, "chosen": choices, "slopes": slopes, "probabilities": found}


def by_id(design: training.Design, values: training.Floats) -> dict[str, float]:
    """Row id -> probability, where there is one."""
    return {row.id: round(float(value), 4) for row, value in zip(design.rows, values, strict=True) if not np.isnan(value)}


if __name__ == "__main__":
    run(main)
