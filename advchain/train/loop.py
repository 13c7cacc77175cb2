"""The training loop: optimizer steps over planned packs, saved, stopped at the second NaN.

What a step computes depends on the rows, the seed and the step's number only: there is no data position and no random state to
restore, and a killed training that resumes ends with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advchain.cli import STOPPED, stop_noted
from advchain.errors import EngineError
from advchain.io import write_json
from advchain.records import derive_seed
from advchain.specs import TrainSpec
from advchain.train import checkpoint, validation
from advchain.train.batches import StepPlan, num_steps, plan_steps
from advchain.train.encode import Encoded
from advchain.train.engine import Group
from advchain.train.schedule import learning_rate
from advchain.train.watch import Watch

log = logging.getLogger(__name__)

ADVICE = "Lower train.learning_rate or train.max_grad_norm, or look at the rows."


class Stopped(SystemExit):
    """All processes have ended after the same step because one was asked to stop; the state is saved."""


@dataclass
class Training:
    """Everything one training is made of; `log_rows` grows by one per optimizer step.

    Attributes:
        held: rows for the validation loss, never trained on.
        model: the language model inside `engine`.
        work: folder of what has to survive a kill.
        identity: what must be equal for a saved state to be resumed from.
        changes: what was not equal when it was resumed from all the same (`--allow-changed`).
        best: step and validation loss of the weights to export, with `train.keep: best`.
    """

    spec: TrainSpec
    rows: list[Encoded]
    held: list[Encoded]
    model: Any
    engine: Any
    group: Group
    work: Path
    identity: dict[str, Any]
    watch: Watch
    log_rows: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return num_steps(len(self.rows), self.spec.batch_size, self.spec.epochs)

    @property
    def checkpoints(self) -> Path:
        """Folder of the saved states."""
        return self.work / "ckpt"

    def plan(self) -> Iterator[StepPlan]:
        """All optimizer steps, from the first."""
        spec = self.spec
        lengths = [len(row) for row in self.rows]
        return plan_steps(
            lengths,
            batch_size=spec.batch_size,
            epochs=spec.epochs,
            seed=spec.seed,
            num_ranks=self.group.size,
            micro_batch_tokens=spec.micro_batch_tokens,
        )

    def batch(self, rows: Sequence[Encoded]) -> tuple[Any, ...]:
        """Return a pack's tensors on the device; of no rows, one unsupervised token, to keep the processes in step."""
        from advchain.train.loss import PACK_MULTIPLE, pack

        device = self.group.device
        return pack(rows, PACK_MULTIPLE if device.type == "cuda" else 1).to(device)


def run_training(training: Training, start: int) -> None:
    """Do all optimizer steps from step `start` on. On SIGTERM the step that runs is finished and its state saved.

    Raises:
        EngineError: loss or gradient was NaN or infinite twice; nothing is saved after that.
        StorageError: the state cannot be saved.
        Stopped: a process of the training was asked to stop; the state is saved.
    """
    with stop_noted() as asked:
        for plan in training.plan():
            if plan.step < start:
                continue
            row = run_step(training, plan)
            if training.held and _ends_epoch(training, plan.step + 1):
                row["val_loss"] = validation.validation_loss(training)
                if training.spec.keep == "best":
                    validation.offer(training, plan.step + 1, row["val_loss"])
            training.log_rows.append(row)
            training.watch.step(row)
            _save_if_due(training, row, _any_asked(training, asked))
    training.watch.close(training.log_rows[-1])


def _any_asked(training: Training, asked: Callable[[], bool]) -> bool:
    """Whether any process was asked to stop: all have to end after the same step."""
    import torch

    came = torch.tensor(float(asked()), device=training.group.device)
    torch.distributed.all_reduce(came)
    return bool(came)


def _ends_epoch(training: Training, done: int) -> bool:
    return done % (training.num_steps // training.spec.epochs) == 0


# ----------------------------------------------------------------- saving


def _save_if_due(training: Training, row: dict[str, Any], stop: bool) -> None:
    every, done = training.spec.save_every_steps, row["step"]
    if done >= training.num_steps:
        return
    if row["loss"] is not None and (stop or (every and done % every == 0)):  # not after a skipped step: the next one may end it
        _check_finite(training, done)
        identity = training.identity | {"changes": training.changes}
        checkpoint.save(training.engine, training.checkpoints, done, identity, training.log_rows, training.group)
    if stop:
        log.warning("asked to stop (SIGTERM) after step %d of %d; the next run goes on from the state in %s", done, training.num_steps, training.checkpoints)
        raise Stopped(STOPPED)


def _check_finite(training: Training, done: int) -> None:
    """Stop before a NaN is saved.

    Raises:
        EngineError: a weight is NaN or infinite.
    """
    import torch

    parts = [getattr(weight, "ds_tensor", weight) for weight in training.model.parameters()]  # ZeRO-3: this process's part
    bad = torch.tensor(float(not all(bool(part.isfinite().all()) for part in parts)), device=training.group.device)
    torch.distributed.all_reduce(bad)
    if bad:
        raise EngineError(f"training stopped: after step {done} a weight is NaN or infinite. It was not saved; earlier states are intact. {ADVICE}")


# ----------------------------------------------------------------- one optimizer step


def run_step(training: Training, plan: StepPlan) -> dict[str, Any]:
    """Do one optimizer step; return its line of the training log.

    The loss is the sum over the supervised tokens of the step divided by their number, both over all processes and packs, so it
    does not depend on how the step was split. DeepSpeed leaves out the update where the gradient is NaN or infinite.
    """
    import torch

    began, spec, engine = time.monotonic(), training.spec, training.engine
    torch.manual_seed(derive_seed(spec.seed, "step", plan.step, training.group.rank))
    rate = learning_rate(plan.step, training.num_steps, spec.learning_rate, spec.warmup_ratio, spec.scheduler)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    count = sum(training.rows[row].num_supervised for row in plan.rows)
    losses = _forward_backward(training, plan, count)
    total = losses.sum()
    torch.distributed.all_reduce(total)
    engine.step()
    norm = float(engine.get_global_grad_norm() or 0.0)
    if not math.isfinite(float(total)) or not math.isfinite(norm) or not engine.was_step_applied():
        _skip(training, plan, losses, "gradient" if math.isfinite(float(total)) else "loss")
    fine = engine.was_step_applied()
    lengths = [len(training.rows[row]) for row in plan.rows]
    seconds = time.monotonic() - began
    return {
        "step": plan.step + 1,
        "epoch": plan.epoch + 1,
        "loss": float(total) / count if fine else None,
        "lr": rate,
        "grad_norm": norm if fine else None,
        "tokens": sum(lengths),
        "supervised_tokens": count,
        "seconds": round(seconds, 3),
        **training.watch.figures(lengths, seconds),
    }


def _forward_backward(training: Training, plan: StepPlan, count: int) -> Any:
    """Accumulate the gradient of one step; return the summed loss of each of this process's packs (float64)."""
    import torch

    engine, mine = training.engine, plan.ranks[training.group.rank]
    losses = []
    for number, packed in enumerate(mine):
        engine.set_gradient_accumulation_boundary(number == len(mine) - 1)
        loss = engine(*training.batch([training.rows[row] for row in packed]))
        scale = training.group.size / count + 0.0 * loss.detach()  # NaN where the loss is not finite, so that its gradient is not either
        engine.backward(loss * scale, scale_wrt_gas=False)  # DeepSpeed takes the mean over processes
        losses.append(loss.detach().double())
    return torch.stack(losses)


def _skip(training: Training, plan: StepPlan, losses: Any, what: str) -> None:
    """Write down which rows a left-out step had; stop on every process if it is the second of this training (RELIABILITY C7).

    Raises:
        EngineError: names the rows in whose packs the loss is not finite, or all of the step.
    """
    from torch import distributed

    mine = plan.ranks[training.group.rank]
    bad = [packed for packed, fine in zip(mine, losses.isfinite().tolist(), strict=True) if what == "gradient" or not fine]
    blamed: list[list[str]] = [[] for _ in range(training.group.size)]
    distributed.all_gather_object(blamed, [training.rows[row].id for packed in bad for row in packed])
    names = sorted({name for part in blamed for name in part})
    dump = training.work / f"bad-step-{plan.step + 1:06d}.json"
    if training.group.is_main:
        packs = [[[training.rows[row].id for row in packed] for packed in rank] for rank in plan.ranks]
        write_json(dump, {"step": plan.step + 1, "what": what, "rows": names, "packs_of_processes": packs})
    said = f"the {what} of step {plan.step + 1} of {training.num_steps} is NaN or infinite (rows: {', '.join(names)})"
    if any(row["loss"] is None for row in training.log_rows):
        raise EngineError(
            f"training stopped: {said}, and a step was left out before. Nothing was written, earlier saved states are intact, {dump} lists the batch. {ADVICE}"
        )
    log.warning("%s. This step is left out, a second one would end the training. %s lists the batch.", said, dump)
