"""How far judges agree with people: agreement, kappa, sensitivity, false positives with intervals; rates corrected for a judge's errors.

Intervals are bootstraps that draw whole questions, as answers to one question are no independent witnesses (RELIABILITY 7c). Correction:
Rogan-Gladen, (raw - FPR) / (sensitivity - FPR), its interval from a bootstrap of both samples, the labelled one and the run's (RELIABILITY 7e).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from advchain.stats import cohens_kappa

NUM_DRAWS = 2000
MIN_INFORMED = 0.1  # sensitivity must exceed the false-positive rate by this much, else a corrected rate says nothing


@dataclass(frozen=True)
class Agreement:
    """One judge on one set. Bounds are 95 %; sensitivity is nan without positive labels, fpr without negative ones."""

    n: int
    num_positive: int
    agreement: float
    agreement_low: float
    agreement_high: float
    kappa: float
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    fpr: float
    fpr_low: float
    fpr_high: float

    def as_json(self) -> dict[str, Any]:
        """Numbers with four digits, None for nan."""
        return {name: value if isinstance(value, int) else None if math.isnan(value) else round(value, 4) for name, value in asdict(self).items()}


def measure(human: Sequence[bool], judge: Sequence[bool], questions: Sequence[Hashable], seed: int = 0) -> Agreement:
    """Compare a judge's positives with people's on the same rows.

    Raises:
        ValueError: no rows, or lengths differ.
    """
    if not human or not len(human) == len(judge) == len(questions):
        raise ValueError(f"agreement: {len(human)} human labels, {len(judge)} verdicts, {len(questions)} questions; they must be paired and not empty.")
    counts = per_question(human, judge, questions)
    rng = np.random.default_rng(seed)
    drawn = counts[rng.integers(0, len(counts), size=(NUM_DRAWS, len(counts)))].sum(axis=1)
    bounds = [np.nanquantile(values, [0.025, 0.975]) if not np.isnan(values).all() else (np.nan, np.nan) for values in rates(drawn)]
    points = [float(value[0]) for value in rates(counts.sum(axis=0, keepdims=True))]
    numbers = [(point, float(low), float(high)) for point, (low, high) in zip(points, bounds, strict=True)]
    return Agreement(len(human), sum(human), *numbers[0], cohens_kappa(list(human), list(judge)), *numbers[1], *numbers[2])


def per_question(human: Sequence[bool], judge: Sequence[bool], questions: Sequence[Hashable]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return (questions x 4): true positives, false negatives, false positives, true negatives."""
    places = {question: place for place, question in enumerate(dict.fromkeys(questions))}
    counts = np.zeros((len(places), 4))
    for truth, verdict, question in zip(human, judge, questions, strict=True):
        counts[places[question], (0 if verdict else 1) if truth else (2 if verdict else 3)] += 1
    return counts


def rates(counts: np.ndarray[Any, np.dtype[np.float64]]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Return [agreement, sensitivity, fpr] of rows of four counts; nan where there is nothing to divide by."""
    tp, fn, fp, tn = counts.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return [(tp + tn) / counts.sum(axis=1), tp / (tp + fn), fp / (fp + tn)]


def rogan_gladen(raw: float, sensitivity: float, fpr: float) -> float | None:
    """Return the corrected rate in 0..1, None where the judge is hardly better than chance.

    >>> round(rogan_gladen(0.15, 0.93, 0.04), 4)
    0.1236
    """
    if sensitivity - fpr < MIN_INFORMED:
        return None
    return min(1.0, max(0.0, (raw - fpr) / (sensitivity - fpr)))


def effective_n(rate: float, low: float, high: float, n: int) -> float:
    """Return how many independent rows give an interval as wide as [low, high], at most n: rows of one question or prompt count less than their number.

    >>> round(effective_n(0.5, 0.4, 0.6, 1000))
    96
    """
    if not 0 < rate < 1 or high <= low:
        return float(n)
    return min(float(n), rate * (1 - rate) * (2 * 1.96 / (high - low)) ** 2)


def corrected(raw: float, total: float, sensitivity: tuple[float, float], fpr: tuple[float, float], seed: int = 0) -> tuple[float, float, float] | None:
    """Return (corrected rate, low, high) with the uncertainty of both samples; None where the judge is hardly better than chance, or where it cannot err here
    as it did on the labelled set: a rate below its false positives there, or above its sensitivity, by more than chance.

    Args:
        raw, total: the run's rate and the number of (independent) rows behind it.
        sensitivity, fpr: (rate, number of labelled rows behind it).
    """
    point = rogan_gladen(raw, sensitivity[0], fpr[0])
    if point is None:
        return None
    rng = np.random.default_rng(seed)

    # Jeffreys draws: unlike a plain bootstrap they are not stuck at 0 or 1 where every row said the same
    def draws(share: float, count: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        return rng.beta(share * count + 0.5, (1 - share) * count + 0.5, NUM_DRAWS)

    observed, hit, alarm = draws(raw, total), draws(*sensitivity), draws(*fpr)
    usable = hit - alarm >= MIN_INFORMED
    low, high = np.quantile((observed[usable] - alarm[usable]) / (hit[usable] - alarm[usable]), [0.025, 0.975])
    if high < 0 or low > 1:
        return None
    return point, float(max(low, 0.0)), float(min(high, 1.0))
