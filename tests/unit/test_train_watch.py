"""What is shown of a training: figures in its log, event files that can be read back, trackers that are missing or real."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from pathlib import Path

import pytest
import torch
from tiny_training import PROFILES, make_model, make_spec, tiny_model, write_dataset

from advchain.errors import ConfigError
from advchain.train import trackers
from advchain.train.engine import Group
from advchain.train.sft import train
from advchain.train.watch import Watch, describe, flop_per_step, peak_tflops


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and the event files of its training."""
    folder = tmp_path_factory.mktemp("watched")
    base, rows = make_model(folder / "base"), write_dataset(folder / "rows.jsonl", 7)
    spec = make_spec(holdout_rows=2)
    train(rows, base, folder / "out", folder / "work", spec, PROFILES / "cpu.json", threads=1, logs=folder / "logs", trackers=["tensorboard"])
    return folder


def test_the_log_carries_the_figures(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "out/training.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"], rel=0.05)
        assert row["mfu"] is None and 0.05 < row["peak_memory_gib"] < 64  # no peak is stated for a CPU
    assert [row["step"] for row in rows if "val_loss" in row] == [1, 2]  # the end of each epoch


def test_event_files_hold_the_figures_of_every_step(trained: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    (path,) = (trained / "logs").glob("events.out.tfevents.*")
    data, found = path.read_bytes(), {}
    while data:  # length (8 bytes), its checksum (4), an event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    rows = [json.loads(line) for line in (trained / "out/training.jsonl").read_text().splitlines()]
    for row in rows:
        for key in ("loss", "lr", "grad_norm", "tokens_per_second", "peak_memory_gib", "val_loss"):
            assert found[f"train/{key}", row["step"]] == pytest.approx(row[key], rel=1e-5)
    assert any(tag.startswith("settings") for tag, _ in found)


def test_flop_per_step_is_the_formula_written_out() -> None:
    model = tiny_model()
    layer = 64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 128  # q, o; k, v; gate, up, down
    products = 2 * layer + 64 * 264  # and the head
    assert flop_per_step(model, [10, 30]) == 6 * products * 40 + 6 * 2 * 64 * (100 + 900)


def test_mfu_is_against_the_named_peak() -> None:
    watch = Watch(Group(0, 2, torch.device("cpu")), tiny_model(), 1, 1.0)
    watch.peak = peak_tflops("NVIDIA A100-SXM4-80GB")
    assert watch.peak == 312.0
    assert watch.figures([100_000], 0.5)["mfu"] == round(flop_per_step(watch.model, [100_000]) / 0.5 / (2 * 312e12), 4) > 0


def test_a_gradient_norm_out_of_line_is_told(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(Group(0, 1, torch.device("cpu")), tiny_model(), 10, 1.0)
    watch.begin(0, [])
    row = {"loss": 1.0, "lr": 1e-3, "tokens": 5, "peak_memory_gib": 1.0}
    with caplog.at_level(logging.WARNING):
        for step, norm in enumerate([1.0, 2.0, 1.0, 1.5, 1.0, 90.0]):
            watch.step(row | {"step": step, "grad_norm": norm})
        assert not caplog.text
        watch.step(row | {"step": 7, "grad_norm": 130.0})
    assert re.search(r"step 7: the gradient norm is 130, the median so far 1.25; clipped to 1", caplog.text)


def test_the_progress_line() -> None:
    row = {"loss": 1.25, "lr": 1e-4, "peak_memory_gib": 20.04, "mfu": 0.456, "val_loss": 1.5}
    assert describe(row) == "loss 1.2500, validation 1.5000, lr 1.00e-04, peak 20.0 GiB, MFU 45.6 %"
    assert describe(row | {"loss": None, "mfu": None, "val_loss": None}) == "skipped, lr 1.00e-04, peak 20.0 GiB"


def test_a_tracker_that_is_not_there_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown tracker 'tensorbord'; known: mlflow, tensorboard, wandb. Did you mean 'tensorboard'"):
        trackers.check_trackers(["tensorbord"])
    base = make_model(tmp_path / "base")  # first: transformers looks for torch in the same way
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'wandb' needs the package wandb.*pip install wandb"):
        train(tmp_path, base, tmp_path, tmp_path, make_spec(), tmp_path, trackers=["wandb"])


def test_a_tracker_that_cannot_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file stands where the folder should be")
    with pytest.raises(ConfigError, match=r"train.trackers: tensorboard cannot start .* leave it out with `train: {trackers: \[\]}`"):
        trackers.tensorboard(trackers.Run(tmp_path / "logs", "m/star1/seed0", "0" * 64, {}, 0))
