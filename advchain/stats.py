"""Rates, intervals and paired tests: pure functions of counts and outcomes, checked against references in tests/unit/test_stats.py.

Intervals are per cell (Wilson); differences between models are always paired over the same prompts (RELIABILITY 7b), with prompts,
not samples, as the unit that is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """Lower and upper bound of a rate or a difference of rates, in 0..1 or -1..1."""

    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference first - second with its bootstrap interval."""

    value: float
    low: float
    high: float


def wilson(k: int, n: int, z: float = 1.96) -> Interval:
    """Return the Wilson score interval of k successes in n trials; z = 1.96 gives 95 %.

    Unlike k/n +- z*se it stays inside 0..1 and is not empty at k = 0 or k = n. Without trials nothing is known: (0, 1).

    >>> [round(100 * bound, 1) for bound in wilson(9, 200)]
    [2.4, 8.3]

    Raises:
        ValueError: k is not in 0..n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"wilson: k={k} successes of n={n} trials; allowed is 0 <= k <= n.")
    if n == 0:
        return Interval(0.0, 1.0)
    rate, square = k / n, z * z / n
    centre = (rate + square / 2) / (1 + square)
    half = z * math.sqrt(rate * (1 - rate) / n + square / (4 * n)) / (1 + square)
    # rounding alone must not push the bound past a rate that was observed exactly
    return Interval(0.0 if k == 0 else max(0.0, centre - half), 1.0 if k == n else min(1.0, centre + half))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased 1 - C(n-c, k) / C(n, k) as a product (METHOD 6): n samples of one problem, c of them correct.

    Raises:
        ValueError: fewer samples than k, or c outside 0..n.
    """
    if k < 1 or n < k:
        raise ValueError(f"pass@{k} needs at least {max(k, 1)} samples of each problem, got n={n}. Raise num_samples or ask for a smaller k >= 1.")
    if not 0 <= c <= n:
        raise ValueError(f"pass@k: c={c} correct of n={n} samples; allowed is 0 <= c <= n.")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided McNemar p-value: a binomial test with p = 1/2 on the prompts where the two models differ.

    Args:
        only_first: prompts on which the first model alone was positive.
        only_second: prompts on which the second model alone was positive.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"mcnemar: discordant counts {only_first} and {only_second} must not be negative.")
    n = only_first + only_second
    tail = sum(math.comb(n, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << n))


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], items: Sequence[Hashable] | None = None, *, num_draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Return mean(first) - mean(second) with a percentile interval from a bootstrap that draws whole items.

    Args:
        first: outcomes of one model (0/1 or scores), one per (item, sample).
        second: outcomes of the other on the same items in the same order.
        items: item of each outcome; all samples of an item are drawn together. None: every outcome is its own item.
        num_draws: bootstrap draws.

    Raises:
        ValueError: the lengths differ or there is nothing to compare.
    """
    keys = list(range(len(first))) if items is None else list(items)
    if not first or not len(first) == len(second) == len(keys):
        raise ValueError(f"paired_bootstrap: {len(first)} and {len(second)} outcomes of {len(keys)} items; they must be paired and not empty.")
    sums, sizes = _item_sums([a - b for a, b in zip(first, second, strict=True)], keys)
    low, high = _draw_bounds(sums, sizes, num_draws, seed, level)
    return Difference(sum(sums) / sum(sizes), low, high)


def _item_sums(differences: list[float], keys: Sequence[Hashable]) -> tuple[list[float], list[int]]:
    totals: dict[Hashable, list[float]] = {}
    for key, difference in zip(keys, differences, strict=True):
        totals.setdefault(key, []).append(difference)
    return [math.fsum(values) for values in totals.values()], [len(values) for values in totals.values()]


def _draw_bounds(sums: list[float], sizes: list[int], num_draws: int, seed: int, level: float) -> Interval:
    import numpy as np

    rng = np.random.default_rng(seed)
    total, size = np.asarray(sums), np.asarray(sizes)
    means = np.empty(num_draws)
    for start in range(0, num_draws, 500):  # blocks keep memory flat for thousands of items
        drawn = rng.integers(0, len(total), size=(min(500, num_draws - start), len(total)))
        means[start : start + len(drawn)] = total[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values in the order given: reject where adjusted <= alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def cohens_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return Cohen's kappa of two raters on the same rows: agreement beyond chance, 1 = perfect, 0 = chance.

    nan when both raters gave one and the same label throughout, where chance agreement is already perfect.

    Raises:
        ValueError: the lengths differ or there are no rows.
    """
    n = len(first)
    if not n or n != len(second):
        raise ValueError(f"cohens_kappa: {n} and {len(second)} labels; both raters must label the same rows, at least one.")
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    labels = set(first) | set(second)
    chance = sum((sum(a == label for a in first) / n) * (sum(b == label for b in second) / n) for label in labels)
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan
