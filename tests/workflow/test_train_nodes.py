"""Training on several nodes: two launchers that meet at one address, and what a node learns from SLURM."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import ROOT, make_model, make_spec, read_log, write_dataset

from advchain.entries import HardwareEntry, read_entry
from advchain.errors import ConfigError
from advchain.train.launch import PORTS, bind_cores, place_of, set_hardware_environment


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "rows.jsonl", 11)


def command(dataset: Path, base: Path, folder: Path, *more: str, **changes: object) -> list[str]:
    arguments = ["--dataset", dataset, "--base", base, "--out", folder / "out", "--work", folder / "work", "--spec", make_spec(**changes).model_dump_json()]
    return [sys.executable, *map(str, [ROOT / "scripts/train.py", *arguments, *more])]


def free_job_number() -> str:
    """A SLURM job number whose port is free: outside the ports that the system gives to outgoing connections of this very training."""
    for number in range(os.getpid() % 1000, 10_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORTS[number])):
                return str(number)
    raise AssertionError(f"no free port in {PORTS}")


@pytest.mark.parametrize("profile", ["zero2", "zero3"])
def test_two_nodes_learn_what_one_process_learns(dataset: Path, base: Path, tmp_path: Path, profile: str) -> None:
    """Two launchers, each a node of its own as far as torch can tell, one process on each."""
    subprocess.run(command(dataset, base, tmp_path / "one"), check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(PORTS[int(free_job_number())]), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            command(dataset, base, tmp_path / "two", "--nodes", "2", "--processes", "1", deepspeed=profile),
            env=os.environ | place | {"NODE_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    told = [node.communicate(timeout=180)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told[0][-2000:] + told[1][-2000:]
    assert f"node 0 of 2, the first one at 127.0.0.1:{place['MASTER_PORT']}" in told[0]
    assert "2 process(es)" in told[0]
    one, two = read_log(tmp_path / "one/out"), read_log(tmp_path / "two/out")
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=1e-5)


def test_slurm_tells_a_node_its_place() -> None:
    allocation = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "gpu[03-04]", "SLURM_NODEID": "1"}
    assert place_of(allocation) == ("gpu03", 23456, 1)
    assert place_of(allocation | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "0"}) == ("10.0.0.1", 29500, 0)
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        place_of({})


def test_inside_a_slurm_job_srun_starts_one_launcher_per_node(dataset: Path, base: Path, tmp_path: Path) -> None:
    """A shell script stands for srun and starts what it is given once per node, as SLURM does."""
    (tmp_path / "srun").write_text(
        "#!/bin/sh\n"
        f'echo "$@" > {tmp_path}/asked\n'
        'while [ "${1#--}" != "$1" ]; do shift; done\n'
        'SLURM_NODEID=0 "$@" & first=$!\n'
        'SLURM_NODEID=1 "$@" & second=$!\n'
        "wait $first && wait $second\n"
    )
    (tmp_path / "srun").chmod(0o755 | stat.S_IXUSR)
    job = {
        "SLURM_JOB_ID": free_job_number(),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NNODES": "2",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    asked = command(dataset, base, tmp_path, "--nodes", "2", "--processes", "1")
    done = subprocess.run(asked, env=os.environ | job, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "--kill-on-bad-exit=1 --nodes=2 --ntasks=2 --ntasks-per-node=1" in (tmp_path / "asked").read_text()
    assert "2 process(es)" in done.stderr and (tmp_path / "out/model.json").is_file()

    small = subprocess.run(asked, env=os.environ | job | {"SLURM_NNODES": "1"}, capture_output=True, text=True, timeout=60)
    assert small.returncode == 1 and "wants 2 nodes" in small.stderr and "Traceback" not in small.stderr


def test_several_nodes_without_a_place_are_refused(dataset: Path, base: Path, tmp_path: Path) -> None:
    done = subprocess.run(command(dataset, base, tmp_path, "--nodes", "2"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "NODE_RANK" in done.stderr and "Traceback" not in done.stderr


def test_the_machine_sets_its_environment_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    hardware = read_entry("hardware", "rtx4090x8", HardwareEntry, "test")
    for name in hardware.environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NCCL_P2P_DISABLE", "0")
    with caplog.at_level("INFO", "advchain"):
        set_hardware_environment(hardware)
    assert os.environ["NCCL_P2P_DISABLE"] == "0"
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "NCCL_P2P_DISABLE=0 (was set)" in caplog.text and "NCCL_IB_DISABLE=1" in caplog.text


def test_processes_keep_to_their_own_cores() -> None:
    code = "import os, sys; from advchain.train.launch import bind_cores; bind_cores(int(sys.argv[1]), 2); print(*sorted(os.sched_getaffinity(0)))"
    shares = [subprocess.run([sys.executable, "-c", code, rank], capture_output=True, text=True, check=True).stdout.split() for rank in ("0", "1")]
    assert len(os.sched_getaffinity(0)) < 2 or not set(shares[0]) & set(shares[1])
    before = os.sched_getaffinity(0)
    bind_cores(0, 10_000)  # fewer cores than processes: nothing is bound
    assert os.sched_getaffinity(0) == before
