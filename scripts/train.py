#!/usr/bin/env python3
"""Fine-tune a base model on a training set with DeepSpeed; write a checkpoint folder with model.json and training.jsonl."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from advchain import cli
from advchain.entries import HardwareEntry, read_entry
from advchain.specs import TrainSpec

PROFILES = Path(__file__).resolve().parent.parent / "config/deepspeed"


def asked() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="training set (JSONL of samples)")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to make")
    parser.add_argument("--work", type=Path, required=True, help="folder for the saved state, kept between runs")
    parser.add_argument("--spec", required=True, help="TrainSpec as JSON")
    parser.add_argument("--nodes", type=int, default=1, help="nodes; several need a SLURM job, or MASTER_ADDR, MASTER_PORT and NODE_RANK on each")
    parser.add_argument("--processes", type=int, default=0, help="processes on each node; 0: one per visible GPU, one without a GPU")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of a node, shared by its processes; 0: OMP_NUM_THREADS, else all cores")
    parser.add_argument("--hardware", default="cpu", help="entry of config/hardware.yaml: the environment of the processes")
    parser.add_argument("--deepspeed-config", type=Path, help="DeepSpeed profile; left out: config/deepspeed/<deepspeed of the spec>.json")
    changed = parser.add_mutually_exclusive_group()
    changed.add_argument("--allow-changed", action="store_true", help="go on from a saved state of another data set, batch, learning rate, ...; recorded")
    changed.add_argument("--restart-changed", action="store_true", help="begin anew instead (the rules do); by default a state of another training stops")
    parser.add_argument("--logs", type=Path, help="folder for what trackers write; left out: <work>/logs")
    trackers = os.environ.get("ADVCHAIN_TRACKERS", "tensorboard")
    parser.add_argument("--trackers", default=trackers, help="tensorboard, wandb, mlflow, comma-separated; left out: ADVCHAIN_TRACKERS, else tensorboard")
    return parser.parse_args()


def main() -> None:
    arguments = asked()
    spec = cli.parse_spec(TrainSpec, arguments.spec)

    from advchain.train import launch

    hardware = read_entry("hardware", arguments.hardware, HardwareEntry, "--hardware")
    launch.set_hardware_environment(hardware)
    if launch.is_launched():
        if hardware.bind_cores:
            launch.bind_cores(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    else:
        num = launch.num_processes(arguments.processes)
        if num * arguments.nodes > 1:
            launch.launch(num, __file__, sys.argv[1:], arguments.nodes)
            return

    from advchain.train.sft import train

    threads = arguments.threads and max(1, arguments.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    profile = arguments.deepspeed_config or PROFILES / f"{spec.deepspeed}.json"
    train(
        arguments.dataset,
        arguments.base,
        arguments.out,
        arguments.work,
        spec,
        profile,
        threads,
        when_changed="resume" if arguments.allow_changed else "restart" if arguments.restart_changed else "refuse",
        logs=arguments.logs,
        trackers=[name.strip() for name in arguments.trackers.split(",") if name.strip()],
    )


if __name__ == "__main__":
    cli.run(main)
