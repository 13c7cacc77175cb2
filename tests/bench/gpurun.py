"""200 one- and eight-GPU jobs through gpurun at the same time, some of their processes killed with SIGKILL: no card is ever used by two jobs, none is starved.

Each job takes a lock of its own on every card that gpurun names, shared with its worker process: an overlap is a second job that finds one taken, whatever
gpurun believes. Run: make bench-gpurun. The last line is one JSON object.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

GPURUN = Path(__file__).resolve().parents[2] / "scripts/gpurun"
CARDS = 8


def job(folder: Path, name: str, seconds: float) -> None:
    """The command under gpurun: use the cards, with a worker process that lives a little longer than we do when we are killed."""
    cards = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    handles, overlaps = [], 0
    for card in cards:
        handles.append(os.open(folder / f"card{card}", os.O_RDWR | os.O_CREAT))
        try:
            fcntl.flock(handles[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            overlaps += 1
    ends_with_us = "import sys, time; sys.stdin.read(); time.sleep(0.3)"
    worker = subprocess.Popen([sys.executable, "-S", "-c", ends_with_us], stdin=subprocess.PIPE, pass_fds=handles, start_new_session=True)
    (folder / f"{name}.ran").write_text(f"{overlaps} {len(cards)} {worker.pid} {os.getpid()}")
    time.sleep(seconds)
    assert worker.stdin is not None
    worker.stdin.close()
    worker.wait()


def start(folder: Path, name: str, num: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start one job through gpurun."""
    own = {"ADVCHAIN_GPUS": ",".join(map(str, range(CARDS))), "ADVCHAIN_GPU_LOCKS": str(folder / "locks")}
    command = [sys.executable, str(GPURUN), str(num), sys.executable, str(Path(__file__).resolve()), "job", str(folder), name, str(seconds)]
    return subprocess.Popen(command, env=os.environ | own, stderr=subprocess.DEVNULL)


def kill_one(folder: Path, name: str, gpurun: int, chance: random.Random) -> None:
    """Kill one process of a job: gpurun before or while it holds cards, the command, or its worker."""
    ran = folder / f"{name}.ran"
    processes = [gpurun]
    if ran.exists() and len(parts := ran.read_text().split()) == 4:
        processes += [int(parts[2]), int(parts[3])]
    with suppress(ProcessLookupError):
        os.kill(chance.choice(processes), signal.SIGKILL)


def measure(num_jobs: int, at_once: int, share_killed: float, seed: int, tell: Callable[[str], None] = lambda text: None) -> dict[str, float]:
    """Run the jobs, `at_once` started and not ended at any time, and return overlaps, starved and killed jobs, and the longest wait in seconds."""
    chance, begin = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpurun") as root:
        folder = Path(root)
        waiting = [(f"job{n}", CARDS if n % 10 == 0 else 1) for n in range(num_jobs)]
        running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        victims = {name: chance.choice(["in line", "at work"]) for name, _ in waiting if chance.random() < share_killed}
        killed, waits = dict[str, str](), dict[str, float]()
        while waiting or running:
            while waiting and len(running) < at_once:
                name, num = waiting.pop(0)
                running[name] = (start(folder, name, num, chance.uniform(0.05, 0.4)), time.monotonic())
            for name, (process, since) in list(running.items()):
                if name not in waits and (folder / f"{name}.ran").exists():
                    waits[name] = time.monotonic() - since
                due = name in waits if victims.get(name) == "at work" else chance.random() < 0.02
                if name in victims and name not in killed and due:
                    killed[name] = "at work" if name in waits else "in line"
                    kill_one(folder, name, process.pid, chance)
                if process.poll() is not None:
                    del running[name]
            time.sleep(0.02)
            if time.monotonic() - begin > 5 * num_jobs:
                break  # somebody waits for ever
        ran = {path.stem: path.read_text().split() for path in folder.glob("*.ran")}
        starved = [name for name in (f"job{n}" for n in range(num_jobs)) if name not in ran and name not in killed]
        overlaps = sum(int(parts[0]) for parts in ran.values() if parts)
        for process, _ in running.values():
            process.kill()
    tell(f"{num_jobs} jobs, {len(killed)} of them had a process killed, {len(ran)} reached their cards")
    return {
        "overlaps": overlaps,
        "starved": len(starved),
        "jobs": num_jobs,
        "killed_in_line": list(killed.values()).count("in line"),
        "killed_at_work": list(killed.values()).count("at work"),
        "longest_wait": round(max(waits.values()), 1),
        "seconds": round(time.monotonic() - begin, 1),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        job(Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
    else:
        print(json.dumps(measure(200, 12, 0.25, seed=1, tell=print)))
