"""RELIABILITY B: kill -9, a full disk, a torn or damaged store, two processes on one store, every part of the key."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_server.launch import ApiServer, api_server
from calls import ask, teacher

from advchain import io, manifests
from advchain.attacks.build import Inputs, build_attack
from advchain.chains.build import build_chains
from advchain.errors import StorageError
from advchain.judges.run import judge_files
from advchain.judges.sentinels import NUM_EACH
from advchain.llm.client import Client
from advchain.records import Chain, Response, content_id
from advchain.specs import AttackSpec, ChainsSpec, JudgeSpec, JudgeStageSpec, PromptsSpec, TeacherSpec
from advchain.store import Store, make_key, read_store

ROOT = Path(__file__).resolve().parents[2]
NUM_KILLS = int(os.environ.get("ADVCHAIN_KILLS", "20"))
IN_FLIGHT = 8


def chains(num: int) -> list[Chain]:
    """Harmless made-up rows."""
    rows = []
    for i in range(num):
        steps = tuple(f"Thought {part} about the borrowed ladder, case {i}." for part in ("one", "two", "three", "four"))
        fields = {"source": "made-up", "nature": "harmful", "prompt": f"May I borrow ladder number {i}?", "answer": f"Ask first, {i}."}
        rows.append(Chain(id=content_id("made", i), steps=steps, category=(f"Category {i % 3}",), **fields))
    return rows


@dataclass
class Stage:
    """A stage that calls an endpoint: its command, and the same in this process, given output, work folder and teacher."""

    command: list[Any]
    run: Callable[[Path, Path, TeacherSpec], None]
    num_sentinels: int = 0  # asked before anything else, once; their replies are not kept in the stage's store


EMBEDDED = TeacherSpec(name="embedded", base_url="embedded", model="embedded-teacher")


def chains_stage(folder: Path, server: ApiServer, num_rows: int) -> tuple[Stage, TeacherSpec]:
    io.write_jsonl(folder / "source.jsonl", chains(num_rows))
    endpoint = teacher(server, name="embedded", model="embedded-teacher", max_in_flight=IN_FLIGHT, max_tokens=1024, temperature=0.7)

    def spec(asked: TeacherSpec) -> ChainsSpec:
        return ChainsSpec(version=1, name="tc", kind="temptation", teacher=asked)

    command = [ROOT / "scripts/chains.py", "--source", folder / "source.jsonl", "--spec", spec(endpoint).model_dump_json()]
    return Stage(command, lambda output, work, asked: build_chains(folder / "source.jsonl", output, spec(asked), work)), endpoint


def attack_stage(folder: Path, server: ApiServer, num_rows: int) -> tuple[Stage, TeacherSpec]:
    io.write_jsonl(folder / "source.jsonl", chains(num_rows))
    endpoint = teacher(server, name="attacker", model="embedded-attacker", max_in_flight=IN_FLIGHT, max_tokens=1024, temperature=0.7)

    def spec(asked: TeacherSpec) -> PromptsSpec:
        return PromptsSpec(version=1, name="h", benchmark="h", origin="local", attack=AttackSpec(version=1, name="cot_hijack", teacher=asked))

    def run(output: Path, work: Path, asked: TeacherSpec) -> None:
        asked = asked.model_copy(update={"model": "embedded-attacker"})
        build_attack(output, spec(asked), Inputs(folder / "source.jsonl"), work)

    return Stage([ROOT / "scripts/attack.py", "--source", folder / "source.jsonl", "--spec", spec(endpoint).model_dump_json()], run), endpoint


def judge_stage(folder: Path, server: ApiServer, num_rows: int) -> tuple[Stage, TeacherSpec]:
    server.control(reply="verdict")
    fields = {"benchmark": "b", "nature": "benign", "sample_index": 0, "seed": 0, "text": "t", "thinking": "", "state": "absent", "finish": "stop"}
    counts = {"num_prompt_tokens": 1, "num_tokens": 1}
    rows = [Response(id=f"r{i}", item_id=f"i{i}", prompt=f"Question {i}?", answer=f"Answer {i}.", **fields, **counts) for i in range(3 * num_rows)]
    io.write_jsonl(folder / "responses.jsonl", rows)
    endpoint = teacher(server, name="judge", max_in_flight=IN_FLIGHT)

    def spec(asked: TeacherSpec) -> JudgeStageSpec:
        judges = (JudgeSpec(version=1, name="api", kind="api_harm", teacher=asked),)
        return JudgeStageSpec(version=1, benchmark="b", nature="benign", judges=judges)

    def run(output: Path, work: Path, asked: TeacherSpec) -> None:
        judge_files([(folder / "responses.jsonl", output, spec(asked if asked.base_url != "embedded" else endpoint))], work)

    return Stage(
        [ROOT / "scripts/judge.py", "--responses", folder / "responses.jsonl", "--spec", spec(endpoint).model_dump_json()], run, 2 * NUM_EACH
    ), endpoint


@pytest.mark.parametrize("make", [chains_stage, attack_stage, judge_stage])
def test_b1_kill_9_loses_nothing_and_asks_nothing_twice(make: Callable[..., tuple[Stage, TeacherSpec]], tmp_path: Path) -> None:
    """SIGKILL at random times (20; ADVCHAIN_KILLS=200 for more), then one run to the end: the same file, at most the calls in flight asked again."""
    draw = random.Random(NUM_KILLS)
    with api_server(reply="embedded", latency_seconds=0.03) as server:
        stage, endpoint = make(tmp_path, server, 12 * max(NUM_KILLS, 10))
        stage.run(tmp_path / "undisturbed.jsonl", tmp_path / "other", EMBEDDED)
        server.control(reset=True)
        command = [sys.executable, *stage.command, "--out", tmp_path / "out.jsonl", "--work", tmp_path / "work"]
        again = [0]
        for _ in range(NUM_KILLS):
            before = server.stats()["counts"].get("requests", 0)
            process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
            while server.stats()["counts"].get("requests", 0) == before:
                assert process.poll() is None, "the run ended before it could be killed"
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
            process.wait()
            again.append(server.stats()["asked_again"])
            assert not (tmp_path / "out.jsonl").exists()
        stage.run(tmp_path / "out.jsonl", tmp_path / "work", endpoint)
        stats = server.stats()
    again.append(stats["asked_again"])
    assert max(later - earlier for earlier, later in itertools.pairwise(again)) <= IN_FLIGHT
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()
    (store,) = (path for path in (tmp_path / "work").rglob("*") if path.suffix in (".store", ".replies"))
    keys = [json.loads(line.partition(b" ")[2])["key"] for line in store.read_bytes().splitlines()]
    assert len(keys) == len(set(keys)) == stats["different"] - stage.num_sentinels


def dying_at(number: int) -> None:
    """End this process in front of the `number`-th write, fsync, truncate or rename."""
    left = [number]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return call(*arguments, **named)

        return wrapped

    for name in ("write", "fsync", "replace", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))


def crashes(work: Callable[[], Any], number: int) -> bool:
    """Run `work` in a child that dies at a boundary; False once it got to its end."""
    child = os.fork()
    if child == 0:
        try:
            dying_at(number)
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_b2_a_crash_at_any_boundary_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path, old, new = tmp_path / "rows.jsonl", [{"n": i} for i in range(50)], [{"n": -i} for i in range(80)]
    number = 1
    manifests.write_stage(path, old, stage="test", spec={})
    while crashes(lambda: manifests.write_stage(path, new, stage="test", spec={}), number):
        assert [row for _, row in io.read_jsonl(path)] == old, "the rename is the last boundary"
        number += 1
    assert number > 6 and [row for _, row in io.read_jsonl(path)] == new


def test_b2_a_crash_inside_the_store_leaves_whole_records(tmp_path: Path) -> None:
    def work() -> None:
        with Store(tmp_path / "a.store") as store:
            for i in range(3):
                store.put(f"key{i}", {"n": i})

    for number in range(1, 7):
        (tmp_path / "a.store").unlink(missing_ok=True)
        assert crashes(work, number)
        with Store(tmp_path / "a.store") as store:
            assert len(store) == number // 2 and all(store.get(f"key{i}") == {"n": i} for i in range(len(store)))


def filled(path: Path, num: int = 6) -> bytes:
    with Store(path) as store:
        for i in range(num):
            store.put(make_key(i=i), {"text": f"answer {i} \u2028 é", "n": i})
    return path.read_bytes()


def test_b3_a_store_cut_at_every_byte_of_its_last_two_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.store"
    data = filled(path)
    lines = data.splitlines(keepends=True)
    for end in range(len(data) - len(lines[-1]) - len(lines[-2]), len(data)):
        path.write_bytes(data[:end])
        whole = data[:end].count(b"\n")
        caplog.clear()
        with Store(path) as store:
            assert len(store) == whole and ("half-written" in caplog.text) == (data[:end][-1:] != b"\n")
            store.put("next", {"n": -1})
        assert len(read_store(path)) == whole + 1


FULL_DISK = """
import json, os, sys
from pathlib import Path
from advchain import io, manifests
from advchain.errors import StorageError
from advchain.llm.client import Client
from advchain.store import Store
folder, failures = Path(sys.argv[1]), []
io.write_jsonl(folder / "rows.jsonl", [{"n": 1}])
with Store(folder / "a.store") as store:
    try:
        for i in range(10**6):
            store.put(f"key{i}", {"text": "x" * 1000})
    except StorageError as error:
        failures.append(str(error))
    kept = len(store)
    try:
        io.write_jsonl(folder / "rows.jsonl", ({"text": "y" * 1000} for _ in range(1000)))
    except StorageError as error:
        failures.append(str(error))
    rows = [row for _, row in io.read_jsonl(folder / "rows.jsonl")]
    leftover = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
with Store(folder / "a.store") as store:
    whole = len(store) == kept and all(store.get(f"key{i}") for i in range(kept))
print(json.dumps({"failures": failures, "kept": kept, "whole": whole, "rows": rows, "leftover": leftover}))
"""


def test_b4_a_full_disk(tmp_path: Path) -> None:
    """Two megabytes of disk: told, nothing half-written, the old file intact."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = [
        "bwrap",
        "--bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--size",
        str(2 << 20),
        "--tmpfs",
        folder,
        sys.executable,
        "-c",
        FULL_DISK,
        folder,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["failures"]) == 2 and all(str(folder) in text and "No space left" in text for text in result["failures"])
    assert result["kept"] > 1000 and result["whole"] and result["rows"] == [{"n": 1}] and not result["leftover"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_b4_an_answer_that_cannot_be_kept_stops_the_stage_and_resume_asks_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def failing(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with api_server() as server:
        with Store(tmp_path / "a.store") as store:
            assert ask(teacher(server), 3, store).right == 3
            monkeypatch.setattr(os, "fsync", failing)
            run = ask(teacher(server), 4, store, one_by_one=True)
            assert isinstance(run.error, StorageError) and os.strerror(number) in str(run.error) and "a.store" in str(run.error)
        monkeypatch.undo()
        with Store(tmp_path / "a.store") as store:
            assert ask(teacher(server), 6, store).right == 6
        assert server.stats()["asked_again"] <= 1


HOLD = "import sys, time, pathlib, advchain.store as s\nheld = s.Store(pathlib.Path(sys.argv[1]))\nprint('held', flush=True)\ntime.sleep(60)\n"


def test_b5_b6_a_second_process_is_told_who_holds_the_store_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(StorageError, match=rf"process {holder.pid}\b"):
        Store(path)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with Store(path) as store:
        store.put("a", 1)


def test_b7_a_flipped_bit_is_caught_before_use(tmp_path: Path) -> None:
    """1,000 flips: an error that names file and line; only a flip of the very last byte looks like a torn record, which is dropped and reported."""
    path, draw = tmp_path / "a.store", random.Random(0)
    data = filled(path)
    num_errors = 0
    for _ in range(1000):
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        if flipped[-1:] != b"\n":
            with Store(path) as store:
                assert len(store) == 5
            continue
        with pytest.raises(StorageError, match=rf"{path.name}, line \d"):
            Store(path)
        num_errors += 1
    assert num_errors > 950


CHANGES: list[dict[str, Any]] = [
    {"model": "m2"},
    {"temperature": 0.1},
    {"max_tokens": 7},
    {"seed": 2},
    {"sample_index": 1},
    {"system": "Repeat the row!"},
]
UNRELATED: list[dict[str, Any]] = [
    {"name": "other"},
    {"max_in_flight": 1},
    {"timeout_seconds": 9.0},
    {"requests_per_minute": 6e5},
    {"usd_per_million_output": 1.0},
]


def test_b8_every_part_of_the_key_misses_and_nothing_else_does(tmp_path: Path) -> None:
    async def one(store: Store, changes: dict[str, Any]) -> None:
        changes = {"seed": 1, "sample_index": 0, "system": "Repeat the row.", **changes}
        seed, sample_index, system = changes.pop("seed"), changes.pop("sample_index"), changes.pop("system")
        async with Client(teacher(server, **changes), store) as client:
            sent = [{"role": "system", "content": system}, {"role": "user", "content": "{}"}]
            await client.complete(sent, seed=seed, sample_index=sample_index, purpose="test")

    with api_server() as server, Store(tmp_path / "a.store") as store:
        for changes in ({}, *UNRELATED):
            asyncio.run(one(store, changes))
        assert len(store) == 1 and server.stats()["counts"]["requests"] == 1
        for number, changes in enumerate(CHANGES, start=2):
            asyncio.run(one(store, changes))
            assert len(store) == number == server.stats()["counts"]["requests"]
