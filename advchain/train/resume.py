"""Going on from a saved state: of the same training always, of a changed one only as the user wishes."""

from __future__ import annotations

import logging
from typing import Any, Literal

from advchain.errors import ConfigError
from advchain.train import checkpoint, validation
from advchain.train.loop import Training

log = logging.getLogger(__name__)

WhenChanged = Literal["refuse", "resume", "restart"]


def resume(training: Training, when_changed: WhenChanged) -> int:
    """Load the newest whole saved state, if any; return the number of steps that are done.

    Raises:
        ConfigError: the state is of another training, and `when_changed` is "refuse", or DeepSpeed cannot load it at all.
        StorageError: its shards are not what they should be.
    """
    from torch import distributed

    found: list[Any] = [None, None]
    if training.group.is_main:
        found = [checkpoint.newest(training.checkpoints), validation.recall(training)]
    distributed.broadcast_object_list(found, src=0)  # all processes agree, whatever each sees of the folder
    saved, best = found
    if saved is None or not _may_resume(training, saved, when_changed):
        return 0
    training.best = best
    checkpoint.restore(training.engine, training.checkpoints, saved, training.group)
    training.log_rows[:], training.changes[:] = saved.rows, [*saved.identity.get("changes", []), *training.changes]
    log.info("resumed from %s: %d of %d steps were done", training.checkpoints / saved.tag, saved.step, training.num_steps)
    return int(saved.step)


def _may_resume(training: Training, saved: checkpoint.Saved, when_changed: WhenChanged) -> bool:
    """Whether to go on from a saved state: always from one of the same training, otherwise as the caller wishes."""
    changed = differences(saved.identity, training.identity)
    if not changed:
        return True
    place, what = training.checkpoints / saved.tag, ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())
    if when_changed == "restart":
        log.warning("%s: not resumed, this training differs from it in: %s. Starting afresh; it goes with the first state that is saved.", place, what)
        return False
    if when_changed == "refuse":
        raise ConfigError(
            f"{place} is the state of another training; this one differs in: {what}. Put it back, or go on from there with --allow-changed (recorded in "
            "model.json), begin anew with --restart-changed, or give another --work."
        )
    fixed = sorted({"processes", "base", "spec.precision", "deepspeed.zero_optimization.stage"} & set(changed))
    fixed += ["end"] if saved.step >= training.num_steps else []
    if fixed:
        raise ConfigError(f"{place} cannot be resumed from with another {' and '.join(fixed)} ({what}): its shards are made for it. Put it back or begin anew.")
    log.warning("%s: resumed although this training differs from it in: %s", place, what)
    training.changes.append({"step": saved.step, "changed": {key: list(values) for key, values in changed.items()}})
    return True


def differences(theirs: dict[str, Any], mine: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (theirs, mine) where two nested settings differ; what earlier runs changed is not compared.

    >>> differences({"spec": {"seed": 1, "epochs": 5}}, {"spec": {"seed": 2, "epochs": 5}})
    {'spec.seed': (1, 2)}
    """
    flat_theirs, flat_mine = _flat(theirs), _flat(mine)
    keys = [key for key in {**flat_theirs, **flat_mine} if key != "changes"]
    return {key: (flat_theirs.get(key), flat_mine.get(key)) for key in keys if flat_theirs.get(key) != flat_mine.get(key)}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, part in value.items():
        found |= _flat(part, f"{prefix}{key}.") if isinstance(part, dict) else {prefix + key: list(part) if isinstance(part, tuple) else part}
    return found
