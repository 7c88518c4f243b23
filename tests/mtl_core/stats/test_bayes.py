import baycomp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import betaln

from mtl_core.errors import ArgumentError
from mtl_core.stats import (
    bayesian_bootstrap,
    better_rate,
    correlated_t,
    graded,
    graded_posterior,
    paired_outcomes,
    rate_posterior,
)

RNG = np.random.default_rng(0)


def total(chances):
    return chances.worse + chances.equal + chances.better


@pytest.mark.parametrize(("s", "n"), [(0, 1), (8, 10), (500, 1000), (99_999, 100_000)])
def test_rate_is_a_beta(s, n):
    found, beta = rate_posterior(s, n), stats.beta(s + 1, n - s + 1)
    assert found.estimate == pytest.approx(beta.mean())
    assert (found.low, found.high) == pytest.approx(beta.interval(0.95))


def exact_better(s, n, r, m):
    """P(p_1 > p_2) of two Betas with whole parameters, as a finite sum."""
    a, b, c, d = s + 1, n - s + 1, r + 1, m - r + 1
    i = np.arange(a)
    log_terms = betaln(c + i, d + b) - np.log(b + i) - betaln(1 + i, b) - betaln(c, d)
    return float(np.exp(log_terms).sum())


@pytest.mark.parametrize(
    "counts",
    [(3, 5, 2, 7), (0, 1, 0, 1), (45, 50, 35, 50), (900, 1000, 880, 1000), (9900, 10_000, 40, 50)],
)
def test_better_rate_is_the_exact_sum(counts):
    found = better_rate(*counts)
    assert found.better == pytest.approx(exact_better(*counts), abs=1e-9)
    assert found.equal < 1e-9
    assert total(found) == pytest.approx(1)
    s, n, r, m = counts
    mirrored = better_rate(r, m, s, n)
    assert mirrored.worse == pytest.approx(found.better)


@pytest.mark.parametrize("counts", [(8, 12, 5, 10), (60, 80, 50, 80), (200, 200, 0, 30)])
@pytest.mark.parametrize("margin", [0.01, 0.1, 0.5])
def test_better_rate_with_a_margin(counts, margin):
    s, n, r, m = counts
    one, two = stats.beta(s + 1, n - s + 1), stats.beta(r + 1, m - r + 1)
    found = better_rate(s, n, r, m, margin)
    above, _ = integrate.quad(lambda x: two.pdf(x) * one.sf(x + margin), 0, 1, limit=200)
    below, _ = integrate.quad(lambda x: two.pdf(x) * one.cdf(x - margin), 0, 1, limit=200)
    assert (found.better, found.worse) == pytest.approx((above, below), abs=1e-6)
    assert total(found) == pytest.approx(1)


def outcomes(both, wins, losses, none):
    first = [1] * (both + wins) + [0] * (losses + none)
    second = [1] * both + [0] * wins + [1] * losses + [0] * none
    return first, second


@pytest.mark.parametrize("counts", [(4, 5, 1, 2), (0, 1, 0, 0), (70, 12, 6, 12), (0, 30, 2, 0)])
def test_paired_outcomes_are_a_dirichlet(counts):
    draws = RNG.dirichlet(np.array(counts) + 1, 200_000)
    differences = draws[:, 1] - draws[:, 2]
    for margin in (0.0, 0.02, 0.2):
        found = paired_outcomes(*outcomes(*counts), margin)
        assert found.better == pytest.approx((differences > margin).mean(), abs=0.005)
        assert found.worse == pytest.approx((differences < -margin).mean(), abs=0.005)
        assert total(found) == pytest.approx(1)
    wins, losses = counts[1], counts[2]
    exact = stats.beta(wins + 1, losses + 1).sf(0.5)
    found = paired_outcomes(*outcomes(*counts))
    assert found.better == pytest.approx(exact)
    assert paired_outcomes(*outcomes(*counts), 1e-12).better == pytest.approx(exact, abs=1e-6)


def test_pairs_know_more_than_rates():
    first, second = outcomes(80, 10, 1, 9)
    paired = paired_outcomes(first, second)
    free = better_rate(sum(first), len(first), sum(second), len(second))
    assert paired.better > free.better


def test_graded_mean_is_analytic():
    """Posterior mean Σ l_k (c_k + 1) / (n + K)."""
    values = [0, 0.5, 1, 1, 1]
    found = graded_posterior(values, [0, 0.25, 0.5, 1])
    assert found.estimate == pytest.approx((0 * 2 + 0.25 + 0.5 * 2 + 1 * 4) / 9)
    assert found.low < found.estimate < found.high
    two = graded_posterior([0, 1, 1], [1, 0], draws=100_000)
    beta = rate_posterior(2, 3)
    assert two.estimate == pytest.approx(beta.estimate)
    assert (two.low, two.high) == pytest.approx((beta.low, beta.high), abs=0.01)


def test_graded_of_two_levels_are_rates():
    first, second = [1] * 8 + [0] * 2, [1] * 4 + [0] * 5
    found, exact = graded(first, second, [0, 1], 0.1), better_rate(8, 10, 4, 9, 0.1)
    assert found.better == pytest.approx(exact.better, abs=0.006)
    assert found.worse == pytest.approx(exact.worse, abs=0.006)
    thirds = graded([1 / 3, 2 / 3, 1.0], [0, 1 / 3, 0], [0, 1 / 3, 2 / 3, 1])
    assert thirds.better > 0.9


def test_bayesian_bootstrap_has_its_moments():
    """Of Dirichlet weights: the mean is d̄, the variance Σ (d_i - d̄)² / (n (n + 1))."""
    d = RNG.normal(0.05, 0.2, size=100)
    sd = np.sqrt(np.square(d - d.mean()).sum() / (100 * 101))
    for margin in (0.0, 0.03):
        found = bayesian_bootstrap(d, margin, draws=40_000)
        assert found.better == pytest.approx(stats.norm.sf(margin, d.mean(), sd), abs=0.02)
        assert total(found) == pytest.approx(1)


def test_clusters_share_a_weight():
    d = RNG.normal(0.1, 0.5, size=30)
    copies = bayesian_bootstrap(np.repeat(d, 6), clusters=np.repeat(np.arange(30), 6))
    assert copies.better == pytest.approx(bayesian_bootstrap(d).better, abs=0.01)
    assert bayesian_bootstrap(np.repeat(d, 6)).better > copies.better


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.5])
def test_correlated_t_by_integration(correlation):
    """The formula, with SciPy's density integrated over the three regions."""
    d, margin = RNG.normal(0.02, 0.03, size=10), 0.01
    scale = np.sqrt(d.var(ddof=1) * (1 / 10 + correlation / (1 - correlation)))
    density = stats.t(9, d.mean(), scale).pdf
    regions = [
        integrate.quad(density, a, b, limit=200)[0]
        for a, b in ((-np.inf, -margin), (-margin, margin), (margin, np.inf))
    ]
    found = correlated_t(d, correlation, margin)
    assert (found.worse, found.equal, found.better) == pytest.approx(regions, abs=1e-7)


def test_uncorrelated_is_students_test():
    d = RNG.normal(0.3, 1, size=8)
    assert correlated_t(d).worse == pytest.approx(
        stats.ttest_1samp(d, 0, alternative="greater").pvalue
    )
    assert correlated_t([0.2, 0.2], margin=0.1).better == 1
    assert correlated_t([0.2, 0.2], margin=0.3).equal == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rate_posterior(3, 2), "successes must be at most n"),
        (lambda: better_rate(1, 2, 1, 0), "n_second must be a whole number"),
        (lambda: better_rate(1, 2, 1, 2, -0.1), "margin must be finite and at least 0"),
        (lambda: paired_outcomes([1], [1, 0]), "second must have as many entries as first"),
        (lambda: paired_outcomes([], []), "first must not be empty"),
        (lambda: graded([0.3], [0], [0, 1]), r"first must hold levels only .* found 0\.3"),
        (lambda: graded([0], [0], [0]), "levels must hold at least 2"),
        (lambda: graded_posterior([0], [0, 0, 1]), "levels must differ"),
        (lambda: graded_posterior([np.nan], [0, 1]), "values must be finite"),
        (lambda: bayesian_bootstrap([0.1]), "differences must hold at least 2"),
        (lambda: bayesian_bootstrap([0.1, 0.2], clusters=[1]), "clusters must hold one entry"),
        (lambda: correlated_t([0.1, np.nan]), "differences must be finite"),
        (lambda: correlated_t([0.1, 0.2], 1.0), "correlation must be at least 0 and below 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.slow
def test_folds_that_share_data_need_the_correlation():
    """Ten equally correlated folds (0.1) of equal methods: two-sided errors at 0.05."""
    rng = np.random.default_rng(0)
    d = np.sqrt(0.1) * rng.normal(size=(6000, 1)) + np.sqrt(0.9) * rng.normal(size=(6000, 10))

    def errors(correlation):
        found = [correlated_t(x, correlation) for x in d]
        return np.mean([max(f.better, f.worse) >= 0.975 for f in found])

    assert errors(0.1) <= 0.06
    assert errors(0.0) >= 0.13


@pytest.mark.parametrize("runs", [1, 3])
def test_correlated_t_is_that_of_baycomp(runs):
    rng = np.random.default_rng(runs)
    y = rng.normal(size=10 * runs)
    x = y + rng.normal(0.3, 1, size=10 * runs)
    ours = correlated_t(x - y, correlation=1 / 10, margin=0.2)
    theirs = baycomp.CorrelatedTTest.probs(x, y, rope=0.2, runs=runs)
    np.testing.assert_allclose((ours.better, ours.equal, ours.worse), theirs, atol=1e-12)
