"""What a person sees of a training: a progress line, a log row per step, trackers; tokens/s, MFU, memory and time left.

MFU is the FLOP of the model (6 per weight of a matrix product and token, head included, recomputation not; causal attention within
rows) over what the cards could do: dense bf16 with fp32 accumulation, from the makers' data sheets (PERFORMANCE 1a).
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Sequence
from statistics import median
from typing import Any

from advchain.entries import HardwareEntry, card_entry, read_entry
from advchain.progress import Progress
from advchain.train.engine import Group
from advchain.train.trackers import Tracker

log = logging.getLogger(__name__)

FIGURES = ("loss", "val_loss", "lr", "grad_norm", "tokens_per_second", "mfu", "peak_memory_gib")
SPIKE = 100.0  # times the median gradient norm so far


def peak_tflops(device_name: str) -> float | None:
    """Return the dense bf16 peak of a card in TFLOP/s, as config/hardware.yaml has it; None: the card is not in it.

    >>> peak_tflops("NVIDIA H100 80GB HBM3"), peak_tflops("NVIDIA GeForce RTX 4090"), peak_tflops("NVIDIA GeForce RTX 4090 D")
    (989.4, 165.2, None)
    """
    name = card_entry(device_name)
    return read_entry("hardware", name, HardwareEntry, "hardware").tflops if name else None


def flop_per_step(model: Any, lengths: Sequence[int]) -> float:
    """Return the FLOP of one forward and backward pass over rows of these lengths (PERFORMANCE 1a)."""
    from torch import nn

    config = model.config.get_text_config()
    weights = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]
    products = sum(_flop_per_token(weight) for weight in weights)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 6.0 * config.num_hidden_layers * config.num_attention_heads * head_dim
    return float(products * sum(lengths) + attention * sum(length * length for length in lengths))


def _flop_per_token(weight: Any) -> int:
    """Return the FLOP of one matrix, forward and backward; a frozen one (LoRA) needs no gradient. ZeRO-3 leaves an empty tensor."""
    return (6 if weight.requires_grad else 4) * int(getattr(weight, "ds_numel", weight.numel()))


class Watch:
    """Follows one training on one process; on all but the first it only measures."""

    def __init__(self, group: Group, model: Any, num_steps: int, max_grad_norm: float) -> None:
        self.group, self.model, self.num_steps, self.max_grad_norm = group, model, num_steps, max_grad_norm
        self.trackers: list[Tracker] = []
        self.norms: list[float] = []
        self.peak: float | None = None
        if group.device.type == "cuda":
            import torch

            name = torch.cuda.get_device_name(group.device)
            self.peak = peak_tflops(name)
            log.info("MFU is against %s", f"{self.peak:g} TFLOP/s per card ({name}, dense bf16)" if self.peak else f"nothing: the peak of {name} is not known")

    def begin(self, done: int, trackers: list[Tracker]) -> None:
        """Start the clock after `done` steps."""
        self.trackers = trackers
        self.progress = Progress(self.num_steps - done, "training", "steps", log=log)

    def figures(self, lengths: Sequence[int], seconds: float) -> dict[str, float | None]:
        """Return the speed and memory of one step over rows of these lengths, on all processes together."""
        mfu = None
        if self.peak:
            mfu = round(flop_per_step(self.model, lengths) / seconds / (self.peak * 1e12 * self.group.size), 4)
        return {"tokens_per_second": round(sum(lengths) / seconds, 1), "mfu": mfu, "peak_memory_gib": self.peak_memory_gib()}

    def peak_memory_gib(self) -> float:
        """Return the most memory this process has held, GiB: of its card, or resident on a CPU."""
        if self.group.device.type == "cuda":
            import torch

            return round(float(torch.cuda.max_memory_allocated(self.group.device)) / 2**30, 3)
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)

    def step(self, row: dict[str, Any]) -> None:
        """Show one row of the training log."""
        if not self.group.is_main:
            return
        if row["grad_norm"] is not None:
            self._look_for_spike(row)
        self.progress.update(1, describe(row), tokens=row["tokens"])
        values = {key: float(row[key]) for key in FIGURES if row.get(key) is not None}
        for tracker in self.trackers:
            tracker.log(row["step"], values)

    def _look_for_spike(self, row: dict[str, Any]) -> None:
        if len(self.norms) >= 5 and row["grad_norm"] > SPIKE * median(self.norms):
            log.warning(
                "step %d: the gradient norm is %.3g, the median so far %.3g; clipped to %g",
                row["step"],
                row["grad_norm"],
                median(self.norms),
                self.max_grad_norm,
            )
        self.norms.append(row["grad_norm"])

    def close(self, row: dict[str, Any]) -> None:
        """Show the last row."""
        if self.group.is_main:
            self.progress.close(describe(row))
        for tracker in self.trackers:
            tracker.close()


def describe(row: dict[str, Any]) -> str:
    """Return the figures of a log row for the progress line."""
    loss = "skipped" if row["loss"] is None else f"loss {row['loss']:.4f}"
    parts = [loss, f"lr {row['lr']:.2e}", f"peak {row['peak_memory_gib']:.1f} GiB"]
    if row.get("val_loss") is not None:
        parts.insert(1, f"validation {row['val_loss']:.4f}")
    if row.get("mfu") is not None:
        parts.append(f"MFU {100 * row['mfu']:.1f} %")
    return ", ".join(parts)
