"""Start the processes of a training: none more for one, torch's launcher for several."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from advchain.errors import EngineError
from advchain.train.engine import free_port

log = logging.getLogger(__name__)


def is_launched() -> bool:
    """Whether a launcher (torchrun, deepspeed, srun) has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def num_processes(wanted: int) -> int:
    """Return `wanted`, or for 0 one process per visible GPU, one without a GPU."""
    if wanted:
        return wanted
    import torch

    return max(1, int(torch.cuda.device_count()))


def launch(num: int, script: str, arguments: Sequence[str]) -> None:
    """Run `script` in `num` processes of this machine; when one dies, the launcher ends the others (RELIABILITY C9).

    Raises:
        EngineError: a process failed; it has said why.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // num)))
    log.info("starting %d processes with %s thread(s) each", num, os.environ["OMP_NUM_THREADS"])
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    try:
        run.main(["--nnodes=1", f"--nproc-per-node={num}", "--master-addr=127.0.0.1", f"--master-port={free_port()}", script, *arguments])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise EngineError(f"training process {rank} of {num} ended with exit code {failure.exitcode}; its message is above.") from error
