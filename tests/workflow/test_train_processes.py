"""scripts/train.py as processes: one or two of them learn the same, a kill loses nothing, a failure leaves nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_training import ROOT, make_model, make_spec, read_log, write_dataset


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11 rows in steps of 5: the last step of an epoch has one row, so one of two processes has nothing to do in it."""
    return write_dataset(tmp_path_factory.mktemp("data") / "rows.jsonl", 11)


def start(dataset: Path, base: Path, folder: Path, processes: int, **changes: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = {"dataset": dataset, "base": base, "out": folder / "out", "work": folder / "work", "processes": processes}
    command = [sys.executable, ROOT / "scripts/train.py", "--spec", make_spec(**changes).model_dump_json()]
    command += [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)


def run(dataset: Path, base: Path, folder: Path, processes: int, **changes: object) -> str:
    process = start(dataset, base, folder, processes, **changes)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    return errors


@pytest.fixture(scope="module")
def reference(dataset: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Losses of one process."""
    folder = tmp_path_factory.mktemp("reference")
    run(dataset, base, folder, 1)
    return read_log(folder / "out")


@pytest.mark.parametrize(("profile", "checkpointing"), [("cpu", False), ("zero2", True), ("zero3", True)])
def test_two_processes_learn_what_one_learns(reference: list[dict], dataset: Path, base: Path, tmp_path: Path, profile: str, checkpointing: bool) -> None:
    run(dataset, base, tmp_path, 2, deepspeed=profile, gradient_checkpointing=checkpointing)
    log = read_log(tmp_path / "out")
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in reference], abs=1e-5)
    assert [row["supervised_tokens"] for row in log] == [row["supervised_tokens"] for row in reference]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_training_ends_bit_for_bit_the_same(dataset: Path, base: Path, tmp_path: Path, processes: int) -> None:
    settings = {"epochs": 3, "save_every_steps": 2, "precision": "bf16"}
    run(dataset, base, tmp_path / "whole", processes, **settings)
    kill_after(start(dataset, base, tmp_path / "cut", processes, **settings), tmp_path / "cut" / "work/ckpt/step-000002/complete.json")
    assert not (tmp_path / "cut/out").exists()
    assert "resumed from" in run(dataset, base, tmp_path / "cut", processes, **settings)
    assert read_log(tmp_path / "cut/out") == read_log(tmp_path / "whole/out")
    assert (tmp_path / "cut/out/model.safetensors").read_bytes() == (tmp_path / "whole/out/model.safetensors").read_bytes()


def kill_after(process: subprocess.Popen[str], sign: Path) -> None:
    """SIGKILL the process that was started (a launcher, for several) as soon as `sign` exists; wait until its workers are gone too."""
    try:
        while not sign.exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)  # returns when the last worker has closed stderr: nobody is left behind


def test_one_failing_process_ends_all_with_one_paragraph(dataset: Path, base: Path, tmp_path: Path) -> None:
    process = start(dataset, base, tmp_path, 2, learning_rate=1e30, scheduler="constant", warmup_ratio=0.0)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: training stopped: the" in errors and "Traceback" not in errors
    assert not (tmp_path / "out").exists()
