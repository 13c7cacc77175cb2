"""Every judge that needs neither GPU nor key, on people's labels: agreement, kappa, n per judge and set. The last line is one JSON object.

`ADVCHAIN_DATA=/folder make bench-judges`. Trained judges are read from their held-out probabilities (`make bench-guard` makes the weights anew); the other
offline judges read every answer here; verdicts of large judges that came with a set are the yardsticks. `refusal` is the embedded refusal judge.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from advchain.judges.compare import OFFLINE, agreement_rows, as_response, offline_readings, offline_spec, stored_readings
from advchain.judges.guard.labelled import Labelled, read_sets
from advchain.judges.run import judge_with

# The strictest protocol that was measured stands for a judge on a set.
PROTOCOLS = ("unseen questions and models", "unseen prompts and models", "fixed rule", "set never used in training", "verdicts stored with the set")
NAMES = {"embedded_refusal": "refusal"}


def speed(rows: list[Labelled]) -> dict[str, int]:
    """Answers per second of processor time, of HarmBench's answers: the longest of the sets."""
    answers, found = [as_response(row) for row in rows if row.source == "harmbench"], {}
    for name in OFFLINE:
        with tempfile.TemporaryDirectory() as work:
            began = time.process_time()
            judge_with(offline_spec(name), answers, Path(work), Path(work))
            found[name] = round(len(answers) / (time.process_time() - began))
    return found


def choose(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per judge and set, under the first of PROTOCOLS, else what is left (trained without the set)."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    ranked = sorted(found, key=lambda row: PROTOCOLS.index(row["protocol"]) if row["protocol"] in PROTOCOLS else len(PROTOCOLS))
    for row in ranked:
        if row["method"] == "all":
            best.setdefault((row["judge"], row["set"]), row)
    return list(best.values())


def main() -> None:
    rows = read_sets(Path(os.environ["ADVCHAIN_DATA"]))
    with tempfile.TemporaryDirectory() as work:
        found = choose(agreement_rows(rows, [*offline_readings(rows, Path(work)), *stored_readings(rows)]))
    figures: dict[str, Any] = {}
    print(f"{'judge':<22}{'set':<12}{'n':>6}{'agreement':>11}{'low':>8}{'high':>8}{'kappa':>8}  protocol")
    for row in sorted(found, key=lambda row: (row["kind"], row["set"], row["judge"])):
        numbers = "".join(f"{row[name]:>{width}.3f}" for name, width in (("agreement", 11), ("agreement_low", 8), ("agreement_high", 8), ("kappa", 8)))
        print(f"{row['judge']:<22}{row['set']:<12}{row['n']:>6}{numbers}  {row['protocol']}")
        figures |= {f"{NAMES.get(row['judge'], row['judge'])}.{row['set']}_{name}": row[name] for name in ("agreement", "kappa", "n")}
    print(json.dumps(figures | {f"{name}.answers_per_second": rate for name, rate in speed(rows).items()}))


if __name__ == "__main__":
    main()
