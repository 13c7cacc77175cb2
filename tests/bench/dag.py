"""Planning time of the paper's grid, of one ten times as large, and of a finished one; size of a store and of the results' folders on the way there.

The last line is one JSON object. Seconds are CPU seconds of a process of its own from its start to its end, imports included (`wall_` beside them: this may
run on a busy machine). Each plan is what `snakemake -n -q --configfile ...` makes. `--store ROWS` (200,000) sets the rows of the store.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "config/paper.yaml"
OWN_BLOCKS: dict[str, Any] = {"learning_rate": None, "seeds": None}  # blocks of paper.yaml that the paper does not have
ANSWER = "word " * 400  # of an ordinary chain: 2 kB


def child(*arguments: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"wall_seconds": round(time.monotonic() - began, 1)}


def measured(**found: Any) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(found | {"seconds": round(usage.ru_utime + usage.ru_stime, 2), "mb": usage.ru_maxrss // 1000}))


def plan(folder: Path, config: Path, *, dry: bool = True) -> None:
    sys.path.insert(0, str(ROOT / "tests/workflow"))
    import planner

    measured(jobs=sum(planner.run(folder, [config], dry=dry).rules.values()))


def fill(path: Path, rows: int) -> None:
    from advchain.store import Store, make_key

    with Store(path) as store:
        for number in range(rows):
            store.put(make_key(n=number), {"text": ANSWER, "finish": "stop", "num_tokens": 400, "engine": "vllm", "precision": "bf16"}, sync=False)
    measured(rows=rows, bytes_per_row=round(path.stat().st_size / rows))


def opened(path: Path) -> None:
    from advchain.store import Store

    with Store(path) as store:
        measured(rows=len(store))


def read(path: Path) -> None:
    from advchain.store import read_store

    measured(rows=len(read_store(path)))


def folders(root: Path) -> dict[str, int]:
    """Files of a work folder, of its fullest folder, and of Snakemake's own records."""
    per_folder = Counter(str(path.parent.relative_to(root)) for path in root.rglob("*") if path.is_file())
    fullest = max((name for name in per_folder if not name.startswith(".snakemake")), key=per_folder.__getitem__)
    own = sum(count for name, count in per_folder.items() if name.startswith(".snakemake"))
    return {"files": sum(per_folder.values()) - own, "files_in_fullest_folder": per_folder[fullest], "snakemake_records": own}


def grids(folder: Path) -> dict[str, Path]:
    """The paper's own blocks; all of paper.yaml; the paper's blocks with so many training seeds that they have ten times the jobs."""
    many = {block: {"seeds": list(range(1, 14))} for block in ("main", "ratio")}
    configs = {"paper": {"grid": OWN_BLOCKS}, "paper_yaml": {}, "ten_times": {"grid": many | OWN_BLOCKS}}
    for name, changes in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"extends": str(PAPER)} | changes))
    return {name: folder / f"{name}.yaml" for name in configs}


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["plan"]:
        return plan(Path(arguments[1]), Path(arguments[2]))
    if arguments[:1] == ["finish"]:
        return plan(Path(arguments[1]), Path(arguments[2]), dry=False)
    if arguments[:1] == ["fill"]:
        return fill(Path(arguments[1]), int(arguments[2]))
    if arguments[:1] == ["open"]:
        return opened(Path(arguments[1]))
    if arguments[:1] == ["read"]:
        return read(Path(arguments[1]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=int, default=200_000)
    rows = parser.parse_args(arguments).store
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), {}
        for grid, config in grids(folder).items():
            found[grid] = child("plan", str(folder / "empty"), str(config))
            print(grid, found[grid], file=sys.stderr, flush=True)
        found["finish"] = child("finish", str(folder / "done"), str(folder / "paper_yaml.yaml"))
        found["no_op"] = child("plan", str(folder / "done"), str(folder / "paper_yaml.yaml"))
        found["folders"] = folders(folder / "done")
        print(found["no_op"], found["folders"], file=sys.stderr, flush=True)
        found["store_fill"] = child("fill", str(folder / "a.store"), str(rows))
        found["store_open"] = child("open", str(folder / "a.store"))
        found["store_read"] = child("read", str(folder / "a.store"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
