"""Rates, intervals and paired tests: pure functions of counts and outcomes, checked against references in tests/unit/test_stats.py.

Intervals are per cell (Wilson); differences between models are always paired over the same prompts (RELIABILITY 7b), with prompts,
not samples, as the unit that is drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MAX_SCALE = 1000  # common denominators that are tried
MAX_POINTS = 1 << 17  # of an exact distribution; beyond, drawing is quicker
ROUNDING = 1e-12  # of a distribution worked out by Fourier transforms


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
    n, ways, tail = only_first + only_second, 1, 0
    for i in range(min(only_first, only_second) + 1):
        tail += ways
        ways = ways * (n - i) // (i + 1)  # n choose i + 1 from n choose i
    return min(1.0, 2 * tail / (1 << n))


def paired_bootstrap(
    first: Sequence[float] | Floats,
    second: Sequence[float] | Floats,
    items: Sequence[Hashable] | None = None,
    *,
    num_draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
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
    if not len(first) or not len(first) == len(second) == len(first if items is None else items):
        num = len(first) if items is None else len(items)
        raise ValueError(f"paired_bootstrap: {len(first)} and {len(second)} outcomes of {num} items; they must be paired and not empty.")
    sums = np.subtract(first, second, dtype=np.float64)
    sizes = np.ones(len(sums))
    if items is not None:
        places: dict[Hashable, int] = {}
        codes = [places.setdefault(item, len(places)) for item in items]
        sums, sizes = np.bincount(codes, sums), np.bincount(codes).astype(np.float64)
    return Difference(float(sums.sum() / sizes.sum()), *ratio_bounds(sums, sizes, num_draws=num_draws, seed=seed, level=level))


def ratio_bounds(sums: Floats, sizes: Floats, *, num_draws: int, seed: int, level: float = 0.95) -> Interval:
    """Return the percentile interval of sum(sums) / sum(sizes) from a bootstrap that draws items with replacement.

    Where all sizes are equal and the sums have a common denominator, as shares of few samples do, the distribution over all draws is worked out
    exactly. Otherwise `num_draws` draws are made; where few items are distinct, of how often each of these is in a draw, which is the same and quicker.

    Args:
        sums, sizes: (items,), not empty.
    """
    if sizes.min() == sizes.max():
        values, counts = np.unique(sums / sizes, return_counts=True)
        exact = _exact_mean_bounds(values, counts, level)
        if exact is not None:
            return exact
    distinct, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    few, num = len(counts) < len(sums) / 8, len(sums)
    rng, means = np.random.default_rng(seed), np.empty(num_draws)
    block = max(1, (1 << 20) // (len(counts) if few else num))  # keeps memory flat
    for start in range(0, num_draws, block):
        rows = min(block, num_draws - start)
        if few:
            above, below = distinct @ rng.multinomial(num, counts / num, size=rows).T
        else:
            drawn = rng.integers(0, num, size=(rows, num))
            above, below = sums[drawn].sum(axis=1), sizes[drawn].sum(axis=1)
        means[start : start + rows] = above / below
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _exact_mean_bounds(values: Floats, counts: Ints, level: float) -> Interval | None:
    """The same for a mean: the chances of one drawn item, convolved with themselves as often as items are drawn. None: no common denominator."""
    found = _whole(values)
    num = int(counts.sum())
    if found is None or num * int(np.ptp(found[0])) >= MAX_POINTS:
        return None
    whole, scale = found
    size = 1 << (num * int(np.ptp(whole))).bit_length()
    one = np.bincount(whole - whole.min(), weights=counts / num, minlength=size)
    below = np.cumsum(np.fft.irfft(np.fft.rfft(one) ** num, size))
    ends = np.searchsorted(below, np.array([1 - level, 1 + level]) / 2 - ROUNDING)  # which must not decide a tie
    return Interval(*(float(end / num + whole.min()) / scale for end in ends))


def _whole(values: Floats) -> tuple[Ints, int] | None:
    """Return whole numbers and the scale that made the values whole; None where no scale up to MAX_SCALE does."""
    scales = np.arange(1, MAX_SCALE + 1)
    if len(values) > MAX_SCALE:
        return None
    scaled = np.outer(scales, values)
    fits = np.flatnonzero(np.abs(scaled - np.rint(scaled)).max(axis=1, initial=0.0) < 1e-9)
    return (np.rint(scaled[fits[0]]).astype(np.int64), int(scales[fits[0]])) if len(fits) else None


def sign_flip(differences: Floats, *, num_draws: int, seed: int) -> float:
    """Return the two-sided p of a mean difference under random changes of each item's sign: the two methods swapped within items.

    Exact where the differences have a common denominator (McNemar's test where they are -1, 0 or 1); otherwise from `num_draws` draws, and then never
    below 1 / (num_draws + 1).
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    found, observed = _whole(sizes), abs(float(differences.sum()))
    if found is not None and int(found[0] @ counts) < MAX_POINTS:
        return _exact_sign_flip(found[0], counts, round(observed * found[1]))
    rng, extreme = np.random.default_rng(seed), 0
    block = max(1, (1 << 22) // len(counts))
    for start in range(0, num_draws, block):
        kept = rng.binomial(counts, 0.5, size=(min(block, num_draws - start), len(counts)))
        extreme += int((np.abs((2 * kept - counts) @ sizes) >= observed - 1e-9).sum())
    return (extreme + 1) / (num_draws + 1)


def _exact_sign_flip(sizes: Ints, counts: Ints, observed: int) -> float:
    """2 P(sum of +-sizes >= observed), from the sum's characteristic function prod(cosh(size * i angle) ** count).

    The chances are worked out under a tilt, exp(tilt * sum) times themselves, which puts the observed sum in the middle: so a p of 1e-30 is as
    exact as one of 0.3 (Esscher's transform). The distribution lies round a circle that is wide enough for it.
    """
    if observed == 0:
        return 1.0
    largest = int(sizes @ counts)
    size = 1 << (2 * largest).bit_length()
    tilt = 0.0
    for _ in range(20):  # Newton; from below, so it never overshoots
        tilt += (observed - counts * sizes @ np.tanh(sizes * tilt)) / (counts * sizes**2 @ np.cosh(sizes * tilt) ** -2.0)
    angles = 2j * np.pi / size * np.arange(size // 2 + 1)
    waves = np.cosh(np.outer(sizes, tilt - angles)) / np.cosh(sizes * tilt)[:, None]
    tilted = np.fft.irfft(np.prod(waves ** counts[:, None], axis=0), size)[observed : largest + 1]
    scale = counts @ np.log(np.cosh(sizes * tilt))
    return min(1.0, 2 * float(np.exp(scale - tilt * np.arange(observed, largest + 1)) @ tilted))


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
    pairs, ones, others = Counter(zip(first, second, strict=True)), Counter(first), Counter(second)
    observed = sum(count for (a, b), count in pairs.items() if a == b) / n
    chance = sum(count / n * others[label] / n for label, count in ones.items())
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan
