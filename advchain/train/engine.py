"""DeepSpeed: its configuration from a profile and the spec, its environment, and the engine around the model."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

from advchain.errors import ConfigError, did_you_mean
from advchain.specs import TrainSpec
from advchain.train import heartbeat, lora

log = logging.getLogger(__name__)

BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
DECIDED_BY_SPEC = ("optimizer", "scheduler", "fp16", "amp", "torch_autocast", *BATCH_KEYS)
TIMEOUT = timedelta(minutes=10)  # a process that waits longer for another one gives up


@dataclass(frozen=True)
class Group:
    """This process among those of the training."""

    rank: int
    size: int
    device: Any
    environment: tuple[str, ...] = ()  # variables that this process has set for itself
    left: threading.Event = field(default_factory=threading.Event)  # set when this process no longer watches the others

    @property
    def is_main(self) -> bool:
        """Whether this process logs and writes."""
        return self.rank == 0


def deepspeed_config(path: Path, spec: TrainSpec, num_ranks: int) -> dict[str, Any]:
    """Read a profile of config/deepspeed and fill in what the spec decides ("auto" in the profile).

    Raises:
        ConfigError: no JSON, or it sets what the spec decides.
    """
    if not path.is_file():
        raise ConfigError(f"there is no DeepSpeed profile {path}; {did_you_mean(path.stem, [other.stem for other in path.parent.glob('*.json')])}")
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the DeepSpeed profile {path}: {error}. Profiles are JSON files in config/deepspeed.") from error
    for key in DECIDED_BY_SPEC:
        if config.pop(key, "auto") != "auto":
            raise ConfigError(f"{path}: '{key}' is decided by the `train` section of the config; remove it from the profile.")
    return config | {
        "train_micro_batch_size_per_gpu": max(1, spec.batch_size // num_ranks),  # nominal: a step's micro-batches are cut by tokens (batches.py)
        "gradient_accumulation_steps": 1,
        "gradient_clipping": spec.max_grad_norm,
        "bf16": {**config.get("bf16", {}), "enabled": spec.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
        "seed": spec.seed,
    }


def set_environment() -> tuple[str, ...]:
    """Give a single process what a launcher would, and return the names set; choose DeepSpeed's accelerator before it is imported."""
    import torch

    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "RANK" in os.environ:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            _die_with_launcher()
        return ()
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # 0: any free one
    os.environ.update(place)
    return tuple(place)


def _die_with_launcher() -> None:
    """Ask the kernel for SIGKILL when the launcher is gone: it starts processes in sessions of their own, which would outlive its kill."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def join_group(seed: int = 0, threads: int = 0) -> Group:
    """Start torch.distributed through DeepSpeed (gloo on CPU, nccl on GPU) and return this process's place.

    Args:
        seed: of torch's random state.
        threads: CPU threads of this process; 0 leaves torch's choice (OMP_NUM_THREADS, else all cores).
    """
    made = set_environment()
    import deepspeed
    import torch

    _quiet_libraries()
    # Its shared-memory reduction needs a C++ compiler and 20 s at first use, and spins while it waits; gloo is fast enough.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)
    on_gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if on_gpu:
        torch.cuda.set_device(local)
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", timeout=TIMEOUT, verbose=False)
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    group = Group(rank, size, device, made, heartbeat.start(rank, size))
    if not group.is_main:
        logging.getLogger("advchain").setLevel(logging.WARNING)  # one process tells the story
    return group


def leave_group(group: Group, wait: bool = True) -> None:
    """Wait for the other processes, then end torch.distributed, so that another training can begin in this process."""
    from deepspeed import comm

    if wait:
        comm.barrier()
    group.left.set()
    comm.destroy_process_group()
    for name in group.environment:
        os.environ.pop(name, None)


def _quiet_libraries() -> None:
    """Let DeepSpeed and transformers speak only at ADVCHAIN_LOG=debug: what they say about themselves is noise in a training log."""
    import transformers

    level = logging.INFO if log.isEnabledFor(logging.DEBUG) else logging.ERROR

    transformers.logging.set_verbosity(level)
    transformers.logging.disable_progress_bar()
    for name in ("DeepSpeed", "torch.distributed"):
        logging.getLogger(name).setLevel(level)


def load_model(base: Path, spec: TrainSpec, config: dict[str, Any]) -> Any:
    """Load the base model for training: bf16 weights for precision bf16, else fp32; under ZeRO-3 already in parts."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig

    from advchain.train import attention

    attention.register()
    partitioned = HfDeepSpeedConfig(config) if config.get("zero_optimization", {}).get("stage") == 3 else None
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    ours = {"attn_implementation": attention.NAME, "local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, **ours)
    del partitioned  # transformers looks at it, by a weak reference, only while it loads
    attention.check_supported(model)
    if spec.lora:
        model = lora.add_adapters(model, spec.lora, spec.seed)
    if spec.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def make_optimizer(model: Any, spec: TrainSpec) -> Any:
    """Return torch's fused AdamW; norms, biases and other vectors do not decay."""
    import torch

    decayed: list[Any] = []
    plain: list[Any] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            shape = getattr(parameter, "ds_shape", parameter.shape)  # ZeRO-3 flattens what it partitions
            (decayed if len(shape) > 1 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=spec.betas, fused=True)


def make_engine(model: Any, spec: TrainSpec, config: dict[str, Any]) -> Any:
    """Wrap a causal language model with its loss into a DeepSpeed engine."""
    import deepspeed

    from advchain.train.loss import HeadLoss, SupervisedLoss

    module = SupervisedLoss(model)
    if config.get("zero_optimization", {}).get("stage") == 3:
        deepspeed.utils.set_z3_leaf_modules(module, [HeadLoss])
    with redirect_stdout(StringIO()) as said:  # it prints its memory figures whatever its log level is
        engine, *_ = deepspeed.initialize(model=module, optimizer=make_optimizer(module, spec), config=config)
    log.debug("DeepSpeed: %s", said.getvalue())
    return engine
