"""Seconds of a training step and tokens per second of an engine, from sizes and a card's rates (PERFORMANCE 1a, 1c, 2b)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from advchain.entries import HardwareEntry
from advchain.estimate.memory import GIB, Setup
from advchain.estimate.shapes import Shape

SPREAD = 1.25  # mean squared row length over the square of the mean (STAR-1's rows)
OFFLOAD_BYTES = 28  # that a CPU Adam moves per parameter
SEQUENCES = 256  # that an engine decodes side by side at most (vLLM's default)
CACHE_SHARE, ENGINE_BYTES = 0.9, 2e9  # of a card that an engine takes; what it needs beside weights and key-value cache
STEP_SECONDS = 0.003  # of a decoding step beside reading weights and cache
SHORT_CONTEXT = 2000  # tokens: below, an engine reaches 0.4 of the roofline (calibrated on published rates); above, nearly all
SHORT_SHARE = 0.4
CPU_READ_SHARE, CPU_DECODE_SHARE = 0.25, 0.37  # of a CPU's memory rate and training rate that a decoding step reaches (one answer: 17 tokens/s; 23: 186)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, by what they are spent on; nothing is taken to overlap."""

    compute: float
    traffic: float
    optimizer: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.compute + self.traffic + self.optimizer


def micro_steps(setup: Setup, tokens: float) -> int:
    """Packs of one process in a step of `tokens` tokens."""
    return max(1, math.ceil(tokens / setup.num_ranks / setup.tokens))


def step_time(setup: Setup, hardware: HardwareEntry, tokens: float, rows: float) -> StepTime:
    """Return the time of an optimizer step of `rows` rows with `tokens` tokens in all."""
    flops = setup.shape.training_flops(tokens, SPREAD * tokens * tokens / max(rows, 1), setup.checkpointing)
    compute = flops / (setup.num_ranks * hardware.tflops * 1e12 * hardware.mfu)
    bus = (hardware.bus_gb_per_s if setup.num_nodes == 1 else hardware.network_gb_per_s) * 1e9
    moved = setup.num_trained if setup.zero.offload else 0
    optimizer = OFFLOAD_BYTES * moved / setup.num_nodes / (hardware.host_gb_per_s * 1e9) if moved else 0.0
    return StepTime(compute, traffic_bytes(setup, micro_steps(setup, tokens)) / bus, optimizer)


def traffic_bytes(setup: Setup, num_micro_steps: int) -> float:
    """Bytes that each process sends in one step: gradients reduced, weights gathered; ZeRO-3 gathers twice per micro-step."""
    share = (setup.num_ranks - 1) / setup.num_ranks
    weights, gradients = setup.width * setup.shape.num_parameters, setup.width * setup.num_trained
    if setup.zero.stage == 3:
        return share * num_micro_steps * (2 * weights + gradients)
    if setup.zero.stage == 2:
        return share * (num_micro_steps * gradients + setup.width * setup.num_trained)
    return share * (4 + setup.width) * setup.num_trained  # ZeRO-1 sums fp32 gradients, once


def decode_rate(shape: Shape, hardware: HardwareEntry, context: float, num_gpus: int = 1) -> float:
    """Return output tokens per second of one engine on `num_gpus` cards at a mean context of `context` tokens.

    A decoding step reads the weights and the cache of every sequence once (PERFORMANCE 2b).
    """
    weights, cached = 2.0 * shape.num_parameters, shape.kv_bytes * context
    room = (CACHE_SHARE * hardware.gib * GIB - ENGINE_BYTES) * num_gpus - weights
    batch = max(1.0, min(SEQUENCES, room / cached))
    seconds = (weights + batch * cached) / (0.8 * hardware.memory_gb_per_s * 1e9 * num_gpus) + STEP_SECONDS * (2 if num_gpus > 1 else 1)
    return batch / seconds * (SHORT_SHARE if context < SHORT_CONTEXT else 1.0)


def cpu_rate(shape: Shape, hardware: HardwareEntry, rows: int) -> float:
    """Return output tokens per second of the transformers engine without a GPU, with `rows` answers in flight.

    A step reads the fp32 weights once, whatever the rows, and takes two operations per parameter and row: fewer answers at once are slower each.
    """
    reading = 4.0 * shape.num_parameters / (CPU_READ_SHARE * hardware.memory_gb_per_s * 1e9)
    each = 2.0 * shape.num_parameters / (CPU_DECODE_SHARE * hardware.tflops * 1e12 * hardware.mfu)
    return rows / (reading + rows * each)
