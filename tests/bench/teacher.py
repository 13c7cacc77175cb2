"""Measure the API client against an endpoint in another process, peers beside it; the last line is one JSON object.

`make bench-teacher`, or `python tests/bench/teacher.py [--no-peers]` in an environment with the package. Peers get an environment of their own
(`.venv-peers`). The endpoint allows 100 requests/s (25 at once), answers after a log-normal second on average, and says `Retry-After: 0.5`. Each of our calls
depends on the one before it in its chain of four. Ideal wall = calls / limit + 3 s. A few minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from api_server.launch import ApiServer, api_server  # noqa: E402 - the folder is no package that is installed

PEERS = ROOT / ".venv-peers"
PEER_PINS = ("openai==3.52.0", "inspect_ai==0.3.285")
LIMIT, TAIL_SECONDS = 100, 3.0
LIMITED = {"rate": LIMIT, "burst_seconds": 0.25, "latency_seconds": 1.0, "retry_after": "0.5", "stall_seconds": 15.0}
FAULTS = {"500": 0.05, "reset": 0.02, "cut": 0.01, "stall": 0.01}
NUM_KILLS, KILL_IN_FLIGHT = 20, 32


def client(server: ApiServer, calls: int, **settings: Any) -> subprocess.Popen[str]:
    """Start our client."""
    arguments = {"base_url": server.base_url, "calls": calls, **settings}
    return subprocess.Popen([sys.executable, ROOT / "tests/bench/teacher_client.py", json.dumps(arguments)], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out = process.communicate()[0]
    assert process.returncode == 0, "the client failed"
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def share(by_second: list[int], limit: float = LIMIT) -> float:
    """What passed the limit, as a share of it, in the seconds between a quarter and nine tenths of all requests."""
    total, sums = sum(by_second), [sum(by_second[: second + 1]) for second in range(len(by_second))]
    steady = [num for num, done in zip(by_second, sums, strict=True) if total / 4 <= done <= total * 0.9]
    return sum(steady) / (limit * len(steady))


def summary(figures: dict[str, Any], stats: dict[str, Any], calls: int) -> dict[str, Any]:
    counts = stats["counts"]
    return {
        "share_of_limit": round(share(stats["accepted_by_second"]), 3),
        "wall_over_ideal": round(figures["seconds"] / (calls / LIMIT + TAIL_SECONDS), 3),
        "rejects_per_success": round(counts.get("rejected", 0) / counts["answers"], 4),
        "cpu_ms_per_request": round(figures["cpu_ms_per_request"], 2),
        "rss_mb": round(figures["rss_mb"]),
        "right": figures["right"],
    }


def limited(calls: int, **server_settings: Any) -> dict[str, Any]:
    with api_server(**{**LIMITED, **server_settings}) as server:
        figures = finish(client(server, calls))
        stats = server.stats()
    return {
        **summary(figures, stats, calls),
        "goodput_share": round(share(stats["accepted_by_second"]) * stats["counts"]["answers"] / stats["counts"]["accepted"], 3),
    }


def shifting() -> dict[str, Any]:
    """Halve the limit in the middle, then double it; return the seconds until 0.95 of the new one is used."""
    with api_server(**LIMITED) as server:
        process, start = client(server, 3000), time.monotonic()
        at = []
        for seconds, rate in ((15, LIMIT / 2), (25, LIMIT)):
            time.sleep(max(0.0, start + seconds - time.monotonic()))
            server.control(rate=rate)
            at.append(server.stats()["seconds"])
        finish(process)
        stats = server.stats()
    by_second = stats["accepted_by_second"]

    def back(since: float, until: float, limit: float) -> float | None:
        for second in range(int(since) + 1, int(until) - 1):
            if sum(by_second[second : second + 2]) >= 0.95 * 2 * limit:
                return round(second - since, 1)
        return None

    rejects = stats["counts"].get("rejected", 0) / stats["counts"]["answers"]
    halved, doubled = back(at[0], at[1], LIMIT / 2), back(at[1], len(by_second), LIMIT)
    return {"seconds_after_halving": halved, "seconds_after_doubling": doubled, "rejects_per_success": round(rejects, 4)}


def capacity() -> dict[str, Any]:
    """No limit: what one core carries, every answer fsynced; then 1,000 in flight."""
    with tempfile.TemporaryDirectory() as folder:
        with api_server() as server:
            fast = finish(client(server, 12_000, max_in_flight=64, store=f"{folder}/a.store"))
        with api_server(latency_seconds=1.0) as server:
            wide = finish(client(server, 10_000, max_in_flight=1000, store=f"{folder}/b.store"))
            most_open = server.stats()["most_open"]
    return {
        "requests_per_second": round(fast["steady_rate"]),
        "requests_per_cpu_second": round(1000 / fast["cpu_ms_per_request"]),  # firmer than the line above where others use the cores
        "cpu_ms_per_request": round(fast["cpu_ms_per_request"], 2),
        "at_1000_in_flight": {
            "most_open": most_open,
            "requests_per_second": round(wide["steady_rate"]),
            "cpu_ms_per_request": round(wide["cpu_ms_per_request"], 2),
            "rss_mb": round(wide["rss_mb"]),
        },
    }


def kills() -> dict[str, Any]:
    """SIGKILL the client at random times, start it again, let it end: nothing lost, nothing twice, only calls in flight asked again."""
    calls, draw, asked_again = 6000, random.Random(0), [0]
    with api_server(latency_seconds=0.05) as server, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kill.store"
        for _ in range(NUM_KILLS):
            process, before = client(server, calls, max_in_flight=KILL_IN_FLIGHT, store=str(path)), server.stats()["counts"].get("requests", 0)
            while server.stats()["counts"].get("requests", 0) == before:
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 0.8))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            time.sleep(0.1)
            asked_again.append(server.stats()["asked_again"])
        figures = finish(client(server, calls, max_in_flight=KILL_IN_FLIGHT, store=str(path)))
        asked_again.append(server.stats()["asked_again"])
        keys = [json.loads(line.partition(b" ")[2])["key"] for line in path.read_bytes().splitlines()]
    each = [after - before for before, after in itertools.pairwise(asked_again)]
    return {
        "kills": NUM_KILLS,
        "lost": calls - figures["right"],
        "duplicated": len(keys) - len(set(keys)),
        "asked_again_at_most": max(each),
        "in_flight": KILL_IN_FLIGHT,
    }


def peer(name: str, calls: int, server_settings: dict[str, Any], **settings: Any) -> dict[str, Any]:
    with api_server(**server_settings) as server:
        command = [
            PEERS / "bin/python",
            ROOT / "tests/bench/teacher_peers.py",
            json.dumps({"peer": name, "base_url": server.base_url, "calls": calls, **settings}),
        ]
        out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
        figures, stats = json.loads(out.splitlines()[-1]), server.stats()
    errors = {"errors": figures["errors"]} if figures["errors"] else {}
    if "rate" in server_settings:
        return {**summary(figures, stats, calls), **errors}
    return {"requests_per_second": round(calls / figures["seconds"]), "cpu_ms_per_request": round(figures["cpu_ms_per_request"], 2), **errors}


def peers() -> dict[str, Any]:
    if not (PEERS / "bin/inspect").exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([PEERS / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER_PINS], check=True, stdout=sys.stderr)
    return {
        "openai SDK, 100 in flight (guessed right)": peer("openai", 1000, LIMITED, in_flight=100),
        "openai SDK, 400 in flight": peer("openai", 1000, LIMITED, in_flight=400),
        "inspect_ai, adaptive (default)": peer("inspect_ai", 1000, LIMITED),
        "openai SDK, no limit, 64 in flight": peer("openai", 1000, {}, in_flight=64),
        "inspect_ai, no limit, 64 in flight": peer("inspect_ai", 600, {}, in_flight=64),
    }


def main() -> None:
    """Measure everything, a line each; then the object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    start, parts = time.monotonic(), {}
    jobs = {
        "unknown_limit": lambda: limited(4000),
        "limit_in_headers": lambda: limited(3000, limit_headers=True),
        "with_faults": lambda: limited(2000, faults=FAULTS),
        "limit_moves": shifting,
        "capacity": capacity,
        "kill": kills,
        **({} if options.no_peers else {"peers": peers}),
    }
    for name, job in jobs.items():
        parts[name] = job()
        print(name, json.dumps(parts[name]), flush=True)
    unknown, wide = parts["unknown_limit"], parts["capacity"]["at_1000_in_flight"]
    result = {
        **{key: unknown[key] for key in ("share_of_limit", "wall_over_ideal", "rejects_per_success")},
        "requests_per_second": parts["capacity"]["requests_per_second"],
        "cpu_ms_per_request": parts["capacity"]["cpu_ms_per_request"],
        "rss_mb": wide["rss_mb"],
        "lost": parts["kill"]["lost"],
        "duplicated": parts["kill"]["duplicated"],
        "seconds": round(time.monotonic() - start),
        **parts,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
