import numpy as np
import pytest
from scipy import stats

from mtl_core.errors import ArgumentError
from mtl_core.stats import paired_t, power, seeds_needed, smallest_effect


@pytest.mark.parametrize(("seeds", "effect"), [(3, 3.26), (5, 1.68), (10, 1.00), (20, 0.66)])
def test_smallest_effects(seeds, effect):
    """The figures that the plan prints before a run, in paired standard deviations."""
    found = smallest_effect(1.0, seeds)
    assert found == pytest.approx(effect, abs=0.005)
    assert power(found, 1.0, seeds) == pytest.approx(0.8)
    assert smallest_effect(0.02, seeds) == pytest.approx(0.02 * found)


def test_power_of_nothing_is_alpha():
    for seeds in (2, 5, 50):
        assert power(0.0, 1.0, seeds, 0.1) == pytest.approx(0.1)


def test_power_grows():
    effects = [power(e, 1.0, 5) for e in (0, 0.1, 0.5, 1, 2, 5, 20, 1e3, 1e6)]
    seeds = [power(0.5, 1.0, n) for n in (2, 3, 5, 10, 50, 200)]
    alphas = [power(0.5, 1.0, 10, a) for a in (1e-4, 0.01, 0.05, 0.2)]
    for values in (effects, seeds, alphas):
        assert np.isfinite(values).all()
        assert (np.diff(values) >= 0).all()
        assert max(values) <= 1
    assert power(-0.5, 1.0, 10) == power(0.5, 1.0, 10)


@pytest.mark.parametrize(("effect", "alpha"), [(3.0, 0.05), (1.0, 0.05), (0.3, 0.01), (0.05, 0.05)])
def test_needed_seeds_are_the_fewest(effect, alpha):
    n = seeds_needed(effect, 1.0, alpha)
    assert power(effect, 1.0, n, alpha) >= 0.8
    assert n == 2 or power(effect, 1.0, n - 1, alpha) < 0.8
    assert seeds_needed(1e9, 1.0) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power(np.nan, 1, 5), "effect must be finite"),
        (lambda: power(1, 0, 5), "sd must be finite and above 0"),
        (lambda: power(1, 1, 1), "seeds must be a whole number of at least 2"),
        (lambda: power(1, 1, 5, 1.0), "alpha must lie between"),
        (lambda: smallest_effect(-1, 5), "sd must be finite and above 0"),
        (lambda: smallest_effect(1, 5, chance=0.01), "chance must lie between 0.05 and 1"),
        (lambda: seeds_needed(0, 1), "effect must be large enough to be seen"),
        (lambda: seeds_needed(1, 1, chance=1), "chance must lie"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.slow
def test_power_by_simulation():
    rng = np.random.default_rng(0)
    d = rng.normal(1.0, 1.0, size=(20_000, 6))
    p = stats.ttest_1samp(d, 0, axis=1).pvalue
    assert p[0] == pytest.approx(paired_t(d[0]).p_value)
    assert np.mean(p <= 0.05) == pytest.approx(power(1.0, 1.0, 6), abs=0.01)
