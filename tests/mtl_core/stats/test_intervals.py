import numpy as np
import pytest
from scipy import stats

from mtl_core.errors import ArgumentError
from mtl_core.stats import clopper_pearson, t_interval, wilson


@pytest.mark.parametrize(("n", "successes"), [(1, 0), (1, 1), (10, 3), (200, 199), (1000, 500)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_rates_as_scipy_has_them(n, successes, level):
    reference = stats.binomtest(successes, n)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        found = ours(successes, n, level)
        theirs = reference.proportion_ci(level, method=method)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert found.estimate == successes / n
        assert found.level == level


def test_t_as_scipy_has_it():
    values = np.random.default_rng(0).normal(size=7)
    found = t_interval(values, 0.9)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_constant_values_have_no_width():
    assert t_interval([0.5, 0.5]).width == 0


@pytest.mark.parametrize("values", [[], [0.5], [0.5, np.nan], [[0.5, 0.6]]])
def test_bad_values_are_refused(values):
    with pytest.raises(ArgumentError, match="values must"):
        t_interval(values)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_bad_counts_are_refused(interval):
    with pytest.raises(ArgumentError, match="successes must be at most n"):
        interval(5, 4)
    with pytest.raises(ArgumentError, match="n must be a whole number"):
        interval(0, 0)
    with pytest.raises(ArgumentError, match="successes must be a whole number"):
        interval(-1, 4)
    with pytest.raises(ArgumentError, match="level must lie"):
        interval(1, 4, 95)


def test_exact_rates_cover_at_least_and_wilson_about():
    """Exact coverage: a sum over all outcomes, at many rates."""
    n, rates = 40, np.linspace(0.01, 0.99, 99)
    masses = stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    for method, least, mean in ((clopper_pearson, 0.95, 0.95), (wilson, 0.83, 0.945)):
        bounds = [method(s, n) for s in range(n + 1)]
        low, high = np.array([[b.low, b.high] for b in bounds]).T[:, :, None]
        coverage = (masses * ((low <= rates) & (rates <= high))).sum(0)
        assert coverage.min() >= least
        assert mean <= coverage.mean() < 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "bootstrap"), [(3, 0.75), (5, 0.84), (10, 0.90)])
def test_few_seeds_are_covered_by_t_and_not_by_the_bootstrap(seeds, bootstrap):
    rng = np.random.default_rng(seeds)
    samples = rng.normal(size=(4000, seeds))
    assert 0.93 <= np.mean([0 in t_interval(x) for x in samples]) <= 0.97
    chosen = rng.integers(seeds, size=(1000, 1000, seeds))
    means = np.take_along_axis(samples[:1000, None], chosen, axis=2).mean(2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(bootstrap, abs=0.04)
