"""RELIABILITY B11: SIGTERM to any stage. It ends within 20 s, with an exit code that is no success, keeps what is done, and the next run goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_server.launch import api_server
from test_crash import EMBEDDED, IN_FLIGHT, ROOT, attack_stage, chains_stage, judge_stage
from tiny_training import make_model, make_spec, write_dataset

from advchain.cli import STOPPED
from advchain.io import write_jsonl
from advchain.records import Item
from advchain.specs import GenerateSpec, Sampling
from advchain.store import read_store

GRACE = 20.0


def begin(command: list[Any], **more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    return subprocess.Popen([sys.executable, *map(str, command)], stderr=subprocess.PIPE, text=True, env=environment)


def stop(process: subprocess.Popen[str], ready: Callable[[], bool]) -> str:
    """Send SIGTERM once `ready`, twice as SLURM does; return what the stage said."""
    while not ready():
        assert process.poll() is None, process.stderr and process.stderr.read()[-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=GRACE)[1]
    assert time.monotonic() - asked < GRACE
    assert process.returncode == STOPPED, told[-3000:]
    assert "asked to stop (SIGTERM)" in told and "Traceback" not in told
    return told


@pytest.mark.parametrize("make", [chains_stage, attack_stage, judge_stage])
def test_b11_a_stage_that_calls_keeps_its_answers(make: Callable[..., Any], tmp_path: Path) -> None:
    with api_server(reply="embedded", latency_seconds=0.1) as server:
        stage, endpoint = make(tmp_path, server, 40)
        stage.run(tmp_path / "undisturbed.jsonl", tmp_path / "other", EMBEDDED)
        server.control(reset=True)
        process = begin([*stage.command, "--out", tmp_path / "out.jsonl", "--work", tmp_path / "work"])
        stop(process, lambda: server.stats()["counts"].get("requests", 0) > 2 * IN_FLIGHT)
        assert not (tmp_path / "out.jsonl").exists() and not list(tmp_path.glob(".*.tmp"))
        stage.run(tmp_path / "out.jsonl", tmp_path / "work", endpoint)
        assert server.stats()["asked_again"] <= IN_FLIGHT
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("processes", [1, 2])
def test_b11_a_training_saves_the_step_it_was_in(base: Path, tmp_path: Path, processes: int) -> None:
    """Two processes are stopped through their launcher."""
    rows, spec = write_dataset(tmp_path / "rows.jsonl", 11), make_spec(epochs=50, batch_size=2, save_every_steps=50)
    command = [ROOT / "scripts/train.py", "--dataset", rows, "--base", base, "--out", tmp_path / "out", "--work", tmp_path / "work"]
    command += ["--spec", spec.model_dump_json(), "--processes", str(processes)]
    saved = tmp_path / "work/ckpt"
    told = stop(begin(command), lambda: any(saved.glob("*/complete.json")))
    (complete,) = saved.glob("*/complete.json")
    step = json.loads(complete.read_text())["step"]
    assert f"asked to stop (SIGTERM) after step {step} of 300" in told
    assert step % 50 and not (tmp_path / "out").exists()
    again = begin(command)
    assert again.stderr is not None
    assert any(f"{step} of 300 steps were done" in line for line in again.stderr)
    again.kill()
    again.communicate()


def test_b11_an_engine_keeps_its_answers_and_ends_with_its_parent(base: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", [Item(id=f"i{n}", benchmark="b", nature="benign", prompt=f"Say {n}.") for n in range(60)])
    sampling = {"b": Sampling(max_new_tokens=300, temperature=1.0)}
    spec = GenerateSpec(version=1, checkpoint="tiny/base/released", engine="transformers", batch_tokens=1000, seed=1, sampling=sampling)
    store = tmp_path / "a.store"
    command = [ROOT / "scripts/generate.py", "--checkpoint", base, "--prompts", f"b={tmp_path}/b.jsonl", "--store", store, "--marker", tmp_path / "m.json"]
    process = begin([*command, "--spec", spec.model_dump_json()], TEST_MARK=str(tmp_path))
    stop(process, lambda: store.exists() and len(read_store(store)) > 3)
    assert 3 < len(read_store(store)) < 60 and not (tmp_path / "m.json").exists()
    assert not workers_of(str(tmp_path))


def workers_of(mark: str) -> list[int]:
    """Engine processes that carry a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"advchain.generate.worker" in (path / "cmdline").read_bytes() and mark.encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found
