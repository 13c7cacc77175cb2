"""Time per row and memory of mixing and of the contamination report at 1,000, 10,000 and 100,000 rows; prints one JSON object last.

Each stage and size runs in a process of its own, so that peaks do not mix. Rows are made up: words drawn by Zipf's law, STAR-1's lengths (five paragraphs
of 45 words, prompts of 15, answers of 80, an injected error and correction of 45 each), compared with 3,500 benchmark prompts.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advchain.datasets.contamination.report import write_matches
from advchain.datasets.mix import build_dataset
from advchain.io import write_jsonl
from advchain.records import Item, Sample, Step
from advchain.specs import ContaminationSpec, DatasetSpec, RecipePart

SIZES = (1_000, 10_000, 100_000)
NUM_ITEMS = 3_500
NUM_WORDS = 30_000


class Words:
    """Texts of made-up words with the frequencies of a natural vocabulary."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.weights = [1 / rank for rank in range(1, NUM_WORDS + 1)]
        self.words = [f"w{number:x}" for number in range(NUM_WORDS)]

    def text(self, count: int) -> str:
        return " ".join(self.random.choices(self.words, self.weights, k=count))


def samples(count: int) -> Iterator[Sample]:
    """Rows as a chain set holds them."""
    words = Words(1)
    pool = [words.text(45) for _ in range(2_000)]  # drawing every paragraph anew would take longer than what is measured
    for number in range(count):
        base = [Step(text=words.random.choice(pool)) for _ in range(5)]
        wrong = [Step(text=words.random.choice(pool), role="error"), Step(text=words.random.choice(pool), role="correction")]
        steps = (*base[:2], *wrong, *base[2:])
        answer = words.random.choice(pool)
        yield Sample(
            id=f"tc-{number}", kind="tc", nature="harmful", prompt=words.text(15), steps=steps, answer=answer, category=("a",), source="s", insertion=2
        )


def memory_mb(field: str) -> float:
    """Memory of this process in MB: VmRSS now, VmHWM at its peak (getrusage would carry over the parent's)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(stage: str, folder: Path, size: int) -> dict[str, float]:
    """Run one stage and return milliseconds per row (by the clock, and of CPU) and peak memory, in all and over that at its start."""
    dataset, before = folder / f"{size}.jsonl", memory_mb("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    if stage == "contamination":
        write_matches(folder / f"{size}.matches.jsonl", dataset, ContaminationSpec(version=1), {"made_up": folder / "items.jsonl"}, {})
    else:
        strict = ContaminationSpec(version=1) if stage == "mix_strict" else None
        spec = DatasetSpec(version=1, recipe="r", title="r", parts=(RecipePart(chains="tc", count=int(size * 0.9), steps="all"),), seed=1, strict=strict)
        build_dataset(folder / f"{size}.mixed.jsonl", spec, {"tc": dataset}, {}, {"made_up": folder / "items.jsonl"})
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = memory_mb("VmHWM")
    times = {"ms_per_row": round(1000 * seconds / size, 3), "cpu_ms_per_row": round(1000 * cpu / size, 3), "seconds": round(seconds, 2)}
    return times | {"rss_over_start_mb": round(peak - before), "rss_mb": round(peak)}


def run(sizes: list[int]) -> dict[str, Any]:
    """Measure every stage at every size."""
    found: dict[str, Any] = {"items": NUM_ITEMS, "sizes": sizes}
    with tempfile.TemporaryDirectory() as name:
        folder, words = Path(name), Words(2)
        write_jsonl(folder / "items.jsonl", (Item(id=f"i{n}", benchmark="made_up", nature="harmful", prompt=words.text(20)) for n in range(NUM_ITEMS)))
        for size in sizes:
            write_jsonl(folder / f"{size}.jsonl", samples(size))
            for stage in ("mix", "mix_strict", "contamination"):
                command = [sys.executable, __file__, "--stage", stage, "--folder", name, "--size", str(size)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found.setdefault(stage, {})[str(size)] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--stage", choices=("mix", "mix_strict", "contamination"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--size", type=int)
    args = parser.parse_args()
    print(json.dumps(measure(args.stage, args.folder, args.size) if args.stage else run(args.sizes)))


if __name__ == "__main__":
    main()
