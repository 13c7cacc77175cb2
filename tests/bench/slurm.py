"""The workflow on a real SLURM on loopback, with pretended GPUs: what a training and eight jobs saw, whether orphans are found, and how long it took.

Run: make bench-slurm. The last line is one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The folders of the tests, so that what they share is found.
sys.path[:] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/workflow"), *sys.path[1:]]


def main() -> None:
    from conftest import fetch_small_model
    from slurm_runs import run

    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        outcome = run(Path(folder) / "run", fetch_small_model())
        print(subprocess.run(["tail", "-n", "4", f"{outcome.folder}/default.log"], capture_output=True, text=True).stdout)
        figures = {
            "train_gpus": len(outcome.training_cards.split(",")) if outcome.training_cards else 0,
            "distinct_gpus": len(set(outcome.cards)),
            "orphan_guard": outcome.codes["beside orphans"] == 1 and "scancel" in outcome.refused,
            "timeout_escalated": (outcome.folder / "jobs/slow").read_text() == "2\n",
            "requeue_followed": len(set((outcome.folder / "jobs/again").read_text().split())) == 1,
            "preempted_resumed": "steps were done" in (outcome.folder / "jobs/kept/log").read_text(),
            "launchers": (outcome.folder / "jobs/two/log").read_text().count("GPUs here: 0,1,2,3,4,5,6,7"),
            "slurm_jobs": len(outcome.queue),
            "exit_codes": outcome.codes,
            "seconds": outcome.seconds,
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
