"""Start the processes of a training: none more for one, torch's launcher for several, srun once per node for several nodes.

On each node the launcher is the same; what a node has to know is where the first one listens (MASTER_ADDR, MASTER_PORT) and which
one it is (NODE_RANK). Under SLURM both follow from what srun tells each node, elsewhere they are set by whoever starts the nodes.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from advchain.cli import STOPPED, stop_noted
from advchain.entries import HardwareEntry
from advchain.errors import ConfigError, EngineError

log = logging.getLogger(__name__)

STEP = "ADVCHAIN_NODE_STEP"  # set for what srun starts on each node, so that it does not call srun again
PORTS = range(20000, 30000)  # a job's port on its first node follows from its number, so that every node knows it


class Place(NamedTuple):
    """Where a node finds the others: address and port of the first one, and its own number."""

    address: str
    port: int
    rank: int


def is_launched() -> bool:
    """Whether a launcher (torchrun, deepspeed) has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def num_processes(wanted: int) -> int:
    """Return `wanted`, or for 0 one process per visible GPU, one without a GPU."""
    if wanted:
        return wanted
    import torch

    return max(1, int(torch.cuda.device_count()))


def set_hardware_environment(hardware: HardwareEntry) -> None:
    """Set what the machine's cards need before CUDA and NCCL start; what is set already stays."""
    fresh = {name: value for name, value in hardware.environment.items() if name not in os.environ}
    os.environ.update(fresh)
    if hardware.environment and not is_launched():
        shown = [f"{name}={os.environ[name]}{'' if name in fresh else ' (was set)'}" for name in hardware.environment]
        log.info("%s: %s", hardware.title, ", ".join(shown))


def bind_cores(local_rank: int, num_local: int) -> None:
    """Keep this process to its share of the node's cores: an optimizer on the CPU is slow when processes share caches and sockets."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // num_local
    if share:
        os.sched_setaffinity(0, cores[local_rank * share : (local_rank + 1) * share])


def launch(num: int, script: str, arguments: Sequence[str], num_nodes: int = 1) -> None:
    """Run `script` in `num` processes of each node; when one dies, the launcher ends the others (RELIABILITY C9).

    Raises:
        EngineError: a process failed; it has said why.
        ConfigError: several nodes are wanted and nothing says where they are.
    """
    if num_nodes == 1:
        return _torchrun(num, ["--standalone", "--local-addr=127.0.0.1"], script, arguments)  # the kernel chooses the port as the launcher binds it
    if "SLURM_JOB_ID" in os.environ and STEP not in os.environ:
        return _on_each_node(num_nodes, script, arguments)
    place = place_of(os.environ)
    cards = os.environ.get("CUDA_VISIBLE_DEVICES") or "none"
    log.info("node %d of %d, the first one at %s:%d; GPUs here: %s", place.rank, num_nodes, place.address, place.port, cards)
    where = [f"--nnodes={num_nodes}", f"--node-rank={place.rank}", f"--master-addr={place.address}", f"--master-port={place.port}"]
    return _torchrun(num, where, script, arguments)


def _torchrun(num: int, where: Sequence[str], script: str, arguments: Sequence[str]) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // num)))
    log.info("starting %d processes with %s thread(s) each", num, os.environ["OMP_NUM_THREADS"])
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    try:
        run.main([*where, f"--nproc-per-node={num}", script, *arguments])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == STOPPED:
            raise SystemExit(STOPPED) from None
        raise EngineError(f"training process {rank} of {num} ended with exit code {failure.exitcode}; its message is above.") from error
    except SignalException:  # the launcher passed SIGTERM on and waited for its processes
        raise SystemExit(STOPPED) from None


def _on_each_node(num_nodes: int, script: str, arguments: Sequence[str]) -> None:
    """Start this very command once per node of the allocation; srun ends the others when one fails.

    SIGTERM comes from SLURM to every step by itself, so here it is only noted: the wait for what the nodes save goes on.
    """
    job = os.environ["SLURM_JOB_ID"]
    given = int(os.environ.get("SLURM_NNODES", num_nodes))  # Snakemake's SLURM plugin drops it; srun then finds out
    if given != num_nodes:
        raise ConfigError(f"the training wants {num_nodes} nodes (train_nodes in config/models.yaml), the SLURM job {job} has {given}.")
    command = ["srun", "--overlap", "--kill-on-bad-exit=1", f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1", "--cpu-bind=none"]
    log.info("starting on the %d nodes of SLURM job %s through srun", num_nodes, job)
    with stop_noted() as asked:
        code = subprocess.run([*command, sys.executable, script, *arguments], env=os.environ | {STEP: "1"}, check=False).returncode
    if code and asked():
        raise SystemExit(STOPPED)
    if code:
        raise EngineError(f"the training on the nodes of SLURM job {job} ended with exit code {code}; the message is above.")


def place_of(environment: Mapping[str, str]) -> Place:
    """Return a node's place: from MASTER_ADDR, MASTER_PORT and NODE_RANK, else from the SLURM allocation.

    Raises:
        ConfigError: neither says where the nodes are.
    """
    if {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= set(environment):
        return Place(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), int(environment["NODE_RANK"]))
    if {"SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NODEID"} <= set(environment):
        port = PORTS[int(environment["SLURM_JOB_ID"]) % len(PORTS)]
        return Place(first_host(environment["SLURM_JOB_NODELIST"]), port, int(environment["SLURM_NODEID"]))
    raise ConfigError(
        "a training on several nodes needs a SLURM job, or MASTER_ADDR, MASTER_PORT (of the first node, the same everywhere) and NODE_RANK "
        "(0, 1, ...) in the environment of train.py on each node. Set them, or set `train_nodes: 1` for the model in config/models.yaml."
    )


def first_host(nodes: str) -> str:
    """Return the first host of a SLURM node list, as `scontrol show hostnames` would expand it.

    >>> first_host("gpu[07-08,12],login1"), first_host("n1,n2"), first_host("rack2-n[3]-ib")
    ('gpu07', 'n1', 'rack2-n3-ib')
    """
    first, depth = "", 0
    for letter in nodes:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            break
        first += letter
    before, bracket, rest = first.partition("[")
    inside, _, after = rest.partition("]")
    return before + inside.split(",")[0].split("-")[0] + after if bracket else first
