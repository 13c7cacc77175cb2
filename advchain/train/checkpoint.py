"""Saved training state: DeepSpeed's shards plus a `complete` file written last, so that a killed save is never mistaken for a whole one.

`work/ckpt/step-000012/` holds the shards; `complete.json` in it the step, what the training was (`identity`), the rows of the
training log so far and the sha256 of every shard: torch.load does not notice a flipped bit (RELIABILITY 5). Every shard also says
inside which step it is of: a model shard by the step saved with it, an optimizer shard by the number of updates its Adam moments
have seen. No `latest` file is written or read.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from advchain.errors import StorageError
from advchain.io import sha256_file, write_json
from advchain.train.engine import Group

log = logging.getLogger(__name__)

COMPLETE = "complete.json"
FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load looks at it in each call, whatever the caller asks for


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint: `step` optimizer steps are done, `rows` are their lines of the training log, `identity` what was trained."""

    tag: str
    step: int
    rows: list[dict[str, Any]]
    identity: dict[str, Any]


def save(engine: Any, folder: Path, step: int, identity: dict[str, Any], rows: list[dict[str, Any]], group: Group) -> None:
    """Save the state after `step` optimizer steps, mark it complete, then remove older ones. Every process calls this.

    Raises:
        StorageError: the disk is full or read-only; the previous checkpoint is intact.
    """
    from deepspeed import comm

    place = folder / f"step-{step:06d}"
    if group.is_main:
        shutil.rmtree(place, ignore_errors=True)  # what an earlier kill left
    comm.barrier()
    state = {"step": step, "updates": _updates(engine)}
    try:
        engine.save_checkpoint(str(folder), tag=place.name, client_state=state, save_latest=False)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise StorageError(f"cannot save the training state to {place}: {error}. The previous one is intact; free space there and run again.") from error
    comm.barrier()
    shards = _hash_shards(place, group)
    if group.is_main:
        write_json(place / COMPLETE, {"step": step, "identity": identity, "shards": shards, "rows": rows})
        for older in folder.glob("step-*"):
            if older != place:
                shutil.rmtree(older, ignore_errors=True)


def _updates(engine: Any) -> int:
    """Return how many updates this process's share of the optimizer has made, by its own count."""
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return max((int(state["step"]) for state in inner.state.values() if "step" in state), default=0)


def _hash_shards(place: Path, group: Group) -> dict[str, str]:
    """Bring all shards to the disk and return their sha256; the processes share the work (1 GB/s each, and a 7B state has 100 GB)."""
    from torch import distributed

    paths = sorted(path for path in place.rglob("*") if path.is_file())
    parts: list[dict[str, str]] = [{}] * group.size
    distributed.all_gather_object(parts, {str(path.relative_to(place)): _sync_and_hash(path) for path in paths[group.rank :: group.size]})
    return {name: digest for part in parts for name, digest in part.items()}


def _sync_and_hash(path: Path) -> str:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return sha256_file(path)


def newest(folder: Path) -> Saved | None:
    """Return the newest checkpoint that is complete and undamaged; say why others are passed over."""
    for place in sorted(folder.glob("step-*"), reverse=True):
        if (saved := _read(place)) is not None:
            return saved
    return None


def _read(place: Path) -> Saved | None:
    try:
        content = json.loads((place / COMPLETE).read_bytes())
        step, identity, shards, rows = (content[key] for key in ("step", "identity", "shards", "rows"))
    except (OSError, ValueError, KeyError):
        log.warning("%s: ignored, it was not saved to the end", place)
        return None
    damaged = [name for name, digest in shards.items() if not (place / name).is_file() or sha256_file(place / name) != digest]
    if damaged:
        log.error("%s: not resumed, damaged or missing: %s", place, ", ".join(damaged))
        return None
    return Saved(place.name, step, rows, identity)


def restore(engine: Any, folder: Path, saved: Saved, group: Group) -> None:
    """Load weights, master weights and optimizer state. Every process calls this.

    Raises:
        StorageError: DeepSpeed loads nothing, a shard would run code, or is of another step than the folder; names the process it belongs to.
    """
    from torch import distributed

    try:
        with _weights_only():
            path, state = engine.load_checkpoint(str(folder), tag=saved.tag, load_lr_scheduler_states=False)
    except UnpicklingError as error:
        raise StorageError(
            f"{folder / saved.tag} cannot be resumed from: a shard of process {group.rank} holds more than numbers, which is not how it was saved. "
            "Nothing of it was run. Delete this folder and run again."
        ) from error
    right = path is not None and state.get("step") == saved.step and state.get("updates") == _updates(engine)
    verdicts = [right] * group.size
    distributed.all_gather_object(verdicts, right)  # all stop together
    if not all(verdicts):
        wrong = ", ".join(str(rank) for rank, good in enumerate(verdicts) if not good)
        raise StorageError(
            f"{folder / saved.tag} cannot be resumed from: the shards of process {wrong} are not those of step {saved.step}. Delete this folder and run again."
        )


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch.load build tensors, plain values and what DeepSpeed's optimizers are saved with, and nothing else: DeepSpeed asks it to unpickle anything."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address
    from torch.serialization import safe_globals

    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        with safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        os.environ.pop(FORCE) if before is None else os.environ.update({FORCE: before})
