"""A run on a small disk that somebody fills while it works, again and again; then one with space. Started inside a small tmpfs: it ends with the process.
TMPDIR is full from the beginning.

Usage: full_disk.py FOLDER COMMAND STAGE...; COMMAND is JSON. The last line printed is one JSON object per run: what it said, what it left.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from workflow import artefacts


def fill(ballast: Path) -> None:
    """Take all space that is left."""
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in artefacts(folder).items()}


def run(folder: Path, line: list[str], stage: str = "") -> dict[str, Any]:
    """Run the workflow; the disk is filled as soon as the log of `stage` is there."""
    before, told = digests(folder), folder.parent / "told.txt"
    with open(told, "w") as output:
        process = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            if stage and list((folder / "results/logs").rglob(stage)):
                fill(folder / "ballast")
            time.sleep(0.005)
    after = digests(folder)
    left = [str(path) for path in folder.rglob(".*") if path.name.endswith((".tmp", ".whole", ".old"))]
    changed = [name for name, digest in before.items() if after.get(name) != digest]
    return {"stage": stage, "code": process.returncode, "told": told.read_text(), "left": left, "changed": changed, "made": after}


def main() -> None:
    folder, line = Path(sys.argv[1]), json.loads(sys.argv[2])
    fill(Path(os.environ["TMPDIR"]) / "ballast")
    runs = []
    for stage in sys.argv[3:]:
        runs.append(run(folder, line, stage))
        runs.append(run(folder, line))  # still full
        (folder / "ballast").unlink(missing_ok=True)
    runs.append(run(folder, line))
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
