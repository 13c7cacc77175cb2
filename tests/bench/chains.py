"""Time and memory of rewriting chains with the embedded teacher at 1k, 10k and 100k rows: `make bench-chains`.

Each size is built in a process of its own, from made-up rows on disk. The last line is one JSON object: seconds per row (wall and processor) and peak
memory over the start (imports done, nothing read) of each size, and what had to be written again.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from advchain import io
from advchain.chains.build import build_chains
from advchain.records import Chain
from advchain.specs import ChainsSpec, TeacherSpec

SIZES = (1_000, 10_000, 100_000)
VERBS = ("borrow", "copy", "open", "move", "sell", "repair", "hide", "replace", "paint", "lend", "swap", "measure")
KINDS = ("old", "new", "red", "loud", "cheap", "broken", "hidden", "spare", "wooden", "locked", "rented", "quiet", "foreign", "rusty", "narrow", "empty")
THINGS = ("ladder", "kettle", "bicycle", "window", "cellar", "ticket", "ledger", "parcel", "garden", "mailbox", "scooter", "passport", "camera", "lantern")
ENDS = ("", " key", " lock", " box", " frame", " handle", " cover", " shelf", " label", " stand", " strap", " hook")
CATEGORIES = ("Illicit", "Privacy", "Harassment", "Intellectual Property", "Misinformation", "Violence", "Self-Harm", "Sexual")
TEACHER = TeacherSpec(name="embedded", base_url="embedded", model="embedded-teacher")


def rows(num: int) -> Iterator[Chain]:
    """Yield made-up rows of the length of STAR-1's."""
    for i in range(num):
        rng = random.Random(i)
        first, second = (f"{rng.choice(KINDS)} {rng.choice(THINGS)}{rng.choice(ENDS)}" for _ in range(2))
        steps = [f"The person asks how to {rng.choice(VERBS)} the {first}, which belongs to someone else."]
        steps += [f"Thought {k} of case {i}: whoever owns the {second} has not been asked, and that weighs more than the convenience of it." for k in range(4)]
        prompt = f"How can I {rng.choice(VERBS)} the {first} of the neighbour with the {second}, case {i}?"
        yield Chain(
            id=f"made-{i}",
            source="made-up",
            nature="harmful",
            prompt=prompt,
            steps=tuple(steps),
            answer=f"I can't help with the {first}.",
            category=(CATEGORIES[i % len(CATEGORIES)],),
        )


def resident_mb() -> float:
    """Return the memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def one_size(num: int, folder: Path) -> dict[str, float]:
    """Build one set in this process; seconds include reading the source and writing the stage."""
    start_mb, start, cpu = resident_mb(), time.perf_counter(), time.process_time()
    build_chains(folder / "rows.jsonl", folder / "samples.jsonl", ChainsSpec(version=0, name="bench", kind="temptation", teacher=TEACHER), folder / "work")
    seconds, cpu, peak_mb = time.perf_counter() - start, time.process_time() - cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    written = json.loads((folder / "samples.manifest.json").read_text())
    retries = written["counts"]["retries"]
    return {
        "rows": num,
        "kept": written["output"]["rows"],
        "ms_per_row": round(1000 * seconds / num, 3),
        "cpu_ms_per_row": round(1000 * cpu / num, 3),
        "start_mb": round(start_mb, 1),
        "peak_over_start_mb": round(peak_mb - start_mb, 1),
        "near_duplicates": retries.get("near_duplicate", 0),
        "other_retries": sum(retries.values()) - retries.get("near_duplicate", 0),
    }


def main() -> None:
    """Measure every size, or those on the command line; `--one SIZE FOLDER` is the process of one of them."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one_size(int(sys.argv[2]), Path(sys.argv[3]))))
        return
    found = {}
    for num in [int(text) for text in sys.argv[1:]] or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            io.write_jsonl(Path(folder) / "rows.jsonl", rows(num))
            child = subprocess.run([sys.executable, __file__, "--one", str(num), folder], capture_output=True, text=True, check=True)
        found[str(num)] = json.loads(child.stdout.splitlines()[-1])
        print(found[str(num)], flush=True)
    print(json.dumps({"bench": "chains", "sizes": found}))


if __name__ == "__main__":
    main()
