"""Statistics against scipy, enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from advchain.stats import cohens_kappa, holm, mcnemar, paired_bootstrap, pass_at_k, ratio_bounds, sign_flip, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (9, 200), (14, 150), (45, 250), (10, 10), (1, 1), (0, 1)])
def test_wilson_equals_scipy(k, n):
    expected = reference.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n, z=reference.norm.ppf(0.975)) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_of_the_papers_cells():
    """METHOD 1.5: HarmBench AdvChain 9/200, hijack 14/150 and 82/150."""
    percent = [tuple(round(100 * bound, 1) for bound in wilson(k, n)) for k, n in ((9, 200), (14, 150), (82, 150))]
    assert percent == [(2.4, 8.3), (5.6, 15.1), (46.7, 62.4)]


def test_wilson_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 50).low == 0.0 and wilson(50, 50).high == 1.0
    for k, n in ((3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="allowed is"):
            wilson(k, n)


@given(st.integers(1, 2000), st.data())
def test_wilson_holds_the_rate(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_covers():
    """Coverage over n 50..500 and p 0.05..0.5 is 93 to 97 % on average, and never below 91 % (RELIABILITY 7g)."""
    rng = np.random.default_rng(7)
    coverage = []
    for n, p in itertools.product((50, 150, 200, 500), (0.05, 0.1, 0.2, 0.35, 0.5)):
        bounds = {k: wilson(k, n) for k in range(n + 1)}
        drawn = rng.binomial(n, p, size=4000)
        coverage.append(np.mean([bounds[k].low <= p <= bounds[k].high for k in drawn]))
    assert 0.93 <= np.mean(coverage) <= 0.97
    assert min(coverage) > 0.91


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_equals_enumeration(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        outcomes = [1] * c + [0] * (n - c)
        subsets = list(itertools.combinations(outcomes, k))
        assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(subset) for subset in subsets]))
        assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))


def test_pass_at_k_limits():
    assert pass_at_k(10, 0, 1) == 0 and pass_at_k(10, 10, 10) == 1 and pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert 0 < pass_at_k(10_000, 1, 100) < 0.011
    for n, c, k in ((1, 1, 2), (5, 6, 1), (5, 1, 0), (0, 0, 1)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(n, c, k)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_binomial_test(first, second):
    expected = reference.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_size():
    """Under the null it rejects at most 5.5 % of the time (exact tests are conservative)."""
    rng = np.random.default_rng(3)
    discordant = rng.binomial(40, 0.5, size=5000)
    assert np.mean([mcnemar(int(k), int(40 - k)) <= 0.05 for k in discordant]) <= 0.055
    with pytest.raises(ValueError):
        mcnemar(-1, 2)


def test_bootstrap_clusters_samples_of_an_item():
    """Ten copies of the same thirty outcomes say no more than one: the interval must not shrink."""
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 2, 30).tolist(), rng.integers(0, 2, 30).tolist()
    single = paired_bootstrap(first, second, num_draws=4000)
    repeated = paired_bootstrap(first * 10, second * 10, items=list(range(30)) * 10, num_draws=4000)
    naive = paired_bootstrap(first * 10, second * 10, num_draws=4000)
    assert single.value == pytest.approx(repeated.value) == pytest.approx(np.mean(first) - np.mean(second))
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high), abs=0.04)
    assert naive.high - naive.low < 0.6 * (repeated.high - repeated.low)


def test_bootstrap_covers_with_30_clusters():
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(200):
        effect = rng.normal(0.1, 0.3, size=30)
        first = np.repeat(effect, 4) + rng.normal(0, 0.2, 120)
        found = paired_bootstrap(first.tolist(), [0.0] * 120, items=np.repeat(np.arange(30), 4).tolist(), num_draws=600, seed=trial)
        hits += found.low <= 0.1 <= found.high
    assert hits / 200 >= 0.90


def test_bootstrap_is_seeded_and_checked():
    assert paired_bootstrap([1, 0, 1], [0, 0, 1], seed=1, num_draws=200) == paired_bootstrap([1, 0, 1], [0, 0, 1], seed=1, num_draws=200)
    for first, second, items in (([], [], None), ([1], [1, 0], None), ([1, 0], [1, 0], ["a"])):
        with pytest.raises(ValueError, match="paired"):
            paired_bootstrap(first, second, items)


def drawn_bounds(sums, sizes, num_draws=20_000, seed=0):
    """The definition: items one by one, with replacement."""
    sums, sizes = np.asarray(sums, dtype=float), np.asarray(sizes, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(num_draws, len(sums)))
    return np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])


@pytest.mark.parametrize("kind", ["shares", "differences", "thirds", "continuous", "unequal sizes"])
def test_bounds_are_those_of_drawing_item_by_item(kind):
    rng, num = np.random.default_rng(2), 150
    sizes = rng.integers(1, 5, num) if kind == "unequal sizes" else np.ones(num)
    sums = {
        "shares": rng.integers(0, 3, num) / 2,
        "differences": rng.integers(-4, 5, num) / 4,
        "thirds": rng.integers(0, 4, num) / 3 - rng.integers(0, 3, num) / 2,
        "continuous": rng.random(num),
        "unequal sizes": rng.binomial(sizes.astype(int), 0.3),
    }[kind].astype(float)
    found, spread = ratio_bounds(sums, sizes.astype(float), num_draws=20_000, seed=1), (sums / sizes).std() / math.sqrt(num)
    assert (found.low, found.high) == pytest.approx(tuple(drawn_bounds(sums, sizes)), abs=0.1 * spread)


@pytest.mark.parametrize("values", [(0.0, 0.5, 1.0, 1.0), (0.25, 0.25, 1.0), (1 / 3, 0.5, 0.0, 0.0, 1.0), (0.5, 0.5), (0.3,)])
def test_bounds_are_exact_over_all_draws(values):
    """Against every draw of n items of n: the smallest mean that at least 2.5 (97.5) per cent of the draws do not exceed."""
    means = np.sort([np.mean(draw) for draw in itertools.product(values, repeat=len(values))])
    expected = [means[math.ceil(share * len(means)) - 1] for share in (0.025, 0.975)]
    for seed in (0, 1):  # nothing is drawn
        assert ratio_bounds(np.array(values), np.ones(len(values)), num_draws=1, seed=seed) == pytest.approx(expected)


def test_exact_bounds_cover():
    """200 prompts of two samples, rates 5 to 50 %: 92 to 98 % on average, as a percentile bootstrap does."""
    rng = np.random.default_rng(12)
    hits = [
        low <= rate <= high
        for rate in (0.05, 0.2, 0.5)
        for _ in range(200)
        for low, high in [ratio_bounds(rng.binomial(2, rate, 200) / 2, np.ones(200), num_draws=1, seed=0)]
    ]
    assert 0.92 <= np.mean(hits) <= 0.98


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=10), st.sampled_from([1, 2, 3, 4, 12]))
def test_sign_flip_equals_scipy(whole, scale):
    """scipy goes through all 2^n arrangements."""
    expected = reference.permutation_test((np.array(whole),), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip(np.array(whole) / scale, num_draws=1, seed=0) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_sign_flip_of_single_samples_is_mcnemar(first, second):
    differences = np.repeat([1.0, -1.0, 0.0], [first, second, 3])
    assert sign_flip(differences, num_draws=1, seed=0) == pytest.approx(mcnemar(first, second), rel=1e-8)


def test_sign_flip_draws_where_nothing_is_common():
    """Values without a common denominator: within Monte Carlo error of the exact p of the same values rounded; never 0."""
    rng = np.random.default_rng(6)
    differences = rng.normal(0.1, 0.5, 60)
    exact = sign_flip(np.round(differences, 2), num_draws=1, seed=0)
    assert sign_flip(differences, num_draws=20_000, seed=0) == pytest.approx(exact, abs=0.02)
    assert sign_flip(np.abs(differences), num_draws=999, seed=0) == 0.001


def test_many_items_agree_with_the_normal_limit():
    """20,000 prompts of two samples: worked out without draws."""
    rng = np.random.default_rng(8)
    differences = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], 20_000)
    bounds, p = ratio_bounds(differences, np.ones(20_000), num_draws=10_000, seed=0), sign_flip(differences, num_draws=10_000, seed=0)
    half = 1.96 * differences.std() / math.sqrt(20_000)
    assert (bounds.low, bounds.high) == pytest.approx((differences.mean() - half, differences.mean() + half), abs=half / 50)
    assert p == pytest.approx(2 * reference.norm.sf(abs(differences.sum()) / math.sqrt((differences**2).sum())), rel=0.02)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_by_definition(p_values):
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    m = len(p_values)
    running = np.maximum.accumulate([min(1.0, (m - rank) * p_values[i]) for rank, i in enumerate(order)])
    assert [adjusted[i] for i in order] == pytest.approx(running.tolist())
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))


def test_holm_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_kappa():
    """The 2x2 example 20, 5, 10, 15 has kappa 0.4."""
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohens_kappa(first, second) == pytest.approx(0.4)
    assert cohens_kappa("abc", "abc") == 1.0
    assert math.isnan(cohens_kappa("aaa", "aaa"))
    with pytest.raises(ValueError):
        cohens_kappa("a", "ab")
