"""Counts and lengths of a training set."""

from __future__ import annotations

import statistics as numbers
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from advchain.records import Sample
from advchain.rows import prompt_key

BINS = 5


def statistics(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return counts and lengths of a training set; `positions` counts k / number of base steps in fifths of the chain."""
    return {
        "kinds": _count(sample.kind for sample in samples),
        "natures": _count(sample.nature for sample in samples),
        "sources": _count(sample.source or "unknown" for sample in samples),
        "teachers": _count(sample.teacher for sample in samples if sample.teacher),
        "categories": _count(name for sample in samples for name in sample.category),
        "roles": _count(step.role for sample in samples for step in sample.steps),
        "steps": spread([len(sample.steps) for sample in samples]),
        "chain_words": spread([len(sample.thinking.split()) for sample in samples]),
        "injected_words": spread([_injected_words(sample) for sample in samples]),
        "answer_words": spread([len(sample.answer.split()) for sample in samples]),
        "positions": _positions(samples),
        "repeated_prompts": len(samples) - len({prompt_key(sample.prompt) for sample in samples}),
    }


def spread(values: Sequence[int]) -> dict[str, float]:
    """Return mean, smallest, median, 95th percentile (nearest rank) and largest; zeros for no values."""
    ordered = sorted(values) or [0]
    rank = -(-95 * len(ordered) // 100) - 1
    mean, middle = round(numbers.fmean(ordered), 1), float(numbers.median(ordered))
    return {"mean": mean, "min": ordered[0], "median": middle, "p95": ordered[rank], "max": ordered[-1]}


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0])))


def _injected_words(sample: Sample) -> int:
    return sum(len(step.rendered.split()) for step in sample.steps if step.role != "base")


def _positions(samples: Sequence[Sample]) -> list[int]:
    bins = [0] * BINS
    for sample in samples:
        if sample.insertion is not None:
            num_base = sum(step.role == "base" for step in sample.steps)
            bins[min(BINS - 1, sample.insertion * BINS // max(num_base, 1))] += 1
    return bins
