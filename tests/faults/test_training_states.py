"""RELIABILITY C5: saved states that were damaged, mixed or mislabelled are refused by name, and never trained on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import make_model, write_dataset
from training import KILLED, Death, Job, Server

from advchain.io import sha256_file, write_json
from advchain.train import checkpoint

CASES = [(1, "zero1", "fp32"), (2, "zero1", "bf16"), (2, "zero2", "bf16"), (2, "zero3", "bf16")]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGES: list[Callable[[Path], None]] = [Path.unlink, cut_short, flip_a_bit]


@pytest.fixture(scope="module", params=CASES, ids=str)
def states(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Job]:
    """A whole training, and one that was killed in its last step with the states of both earlier steps on the disk."""
    ranks, profile, precision = request.param
    folder = tmp_path_factory.mktemp("states")
    changes = (("save_every_steps", 1), ("epochs", 1), ("batch_size", 3), ("precision", precision))
    job = Job(write_dataset(folder / "rows.jsonl", 9), make_model(folder / "base"), folder / "whole", ranks, profile, changes, Death("engine", 10**9))
    server.run(job)
    killed = job.but(folder=folder / "killed", death=Death("engine", job.events() // 2))
    assert KILLED in server.run(killed)[0]
    shutil.copytree(killed.states / "step-000001", folder / "step-000001")
    assert KILLED in server.run(killed.but(death=Death("engine", job.events() // 2)))[0]
    shutil.copytree(folder / "step-000001", killed.states / "step-000001")
    assert len(list(killed.states.glob("*/complete.json"))) == 2
    return job.but(death=None), killed.but(death=None)


def copy(killed: Job, folder: Path) -> Job:
    shutil.copytree(killed.folder, folder)
    return killed.but(folder=folder)


def shards(place: Path) -> list[Path]:
    return sorted(place.rglob("*.pt"))


def test_every_damage_of_every_shard_is_told_by_name(states: tuple[Job, Job], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copy(states[1], tmp_path / "copy").states
    newest = folder / "step-000002"
    assert len(shards(newest)) >= states[1].ranks + 1
    for shard in shards(newest):
        whole = shard.read_bytes()
        for damage in DAMAGES:
            shard.write_bytes(whole)
            damage(shard)
            caplog.clear()
            found = checkpoint.newest(folder)
            assert found is not None and found.step == 1 and shard.name in caplog.text
        shutil.copy(folder / "step-000001" / shard.relative_to(newest), shard)
        found = checkpoint.newest(folder)
        assert found is not None and found.step == 1, "a shard of another step"
        shard.write_bytes(whole)
    found = checkpoint.newest(folder)
    assert found is not None and found.step == 2


def test_a_damaged_state_costs_one_step_and_no_bit(states: tuple[Job, Job], server: Server, tmp_path: Path) -> None:
    whole, killed = states
    job = copy(killed, tmp_path / "copy")
    flip_a_bit(shards(job.states / "step-000002")[-1])
    server.run(job)
    assert "not resumed, damaged or missing" in job.said() and f"resumed from {job.states}/step-000001" in job.said()
    assert job.result() == whole.result()


def test_latest_is_neither_written_nor_read(states: tuple[Job, Job], server: Server, tmp_path: Path) -> None:
    """DeepSpeed's own pointer, naming an older state or one that is not there."""
    whole, killed = states
    assert not list(killed.folder.rglob("latest*"))
    job = copy(killed, tmp_path / "copy")
    (job.states / "latest").write_text("step-000001" if job.ranks == 2 else "step-000099")
    server.run(job)
    assert f"resumed from {job.states}/step-000002" in job.said()
    assert job.result() == whole.result()


def test_shards_of_two_steps_are_refused_even_with_digests_that_fit(states: tuple[Job, Job], server: Server, tmp_path: Path) -> None:
    """Someone puts a state together by hand and writes its digests anew: every shard still knows its step."""
    killed = states[1]
    for number, shard in enumerate(shards(killed.states / "step-000002")):
        job = copy(killed, tmp_path / str(number))
        place = job.states / "step-000002"
        name = shard.relative_to(killed.states / "step-000002")
        shutil.copy(job.states / "step-000001" / name, place / name)
        content = json.loads((place / "complete.json").read_text())
        content["shards"][str(name)] = sha256_file(place / name)
        write_json(place / "complete.json", content)
        (codes,) = server.run(job.but(death=Death("engine", 10**9)))
        assert set(codes) == {1}, job.said()[-2000:]
        assert "cannot be resumed from: the shards of process" in job.said() and not job.out.exists()


class Hostile:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def test_e4_a_shard_that_would_run_code_is_refused(states: tuple[Job, Job], server: Server, tmp_path: Path) -> None:
    """Someone puts an object into the first process's shards that does something when it is loaded, and writes the digests anew."""
    for number, shard in enumerate(path for path in shards(states[1].states / "step-000002") if "rank_01" not in path.name and "rank_1" not in path.name):
        job = copy(states[1], tmp_path / str(number))
        place, name = job.states / "step-000002", shard.relative_to(states[1].states / "step-000002")
        content = torch.load(place / name, weights_only=False)
        torch.save(content | {"more": Hostile(tmp_path / f"pwned{number}")}, place / name)
        complete = json.loads((place / "complete.json").read_text())
        complete["shards"][str(name)] = sha256_file(place / name)
        write_json(place / "complete.json", complete)
        (codes,) = server.run(job.but(death=Death("engine", 10**9)))
        told = (job.folder / "rank-0.log").read_text()
        assert codes[0] == 1 and "holds more than numbers" in told and "Traceback" not in told, told[-2000:]
        assert not job.out.exists()
    assert not list(tmp_path.glob("pwned*"))
