import numpy as np
import pytest
from scipy import stats

from mtl_core.errors import ArgumentError
from mtl_core.stats import (
    barnard,
    friedman,
    mcnemar,
    mean_ranks,
    paired_t,
    pairwise_p_values,
    sign_test,
    welch,
    wilcoxon_or_t,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (8, 2), (3, 3), (40, 61)])
def test_mcnemar_is_the_binomial_test_of_what_differs(wins, losses):
    first = np.array([1] * wins + [0] * losses + [1, 1, 0], dtype=bool)
    second = np.array([0] * wins + [1] * losses + [1, 1, 0], dtype=bool)
    found = mcnemar(first, second, mid_p=False)
    exact = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert found.p_value == pytest.approx(exact)
    assert found.statistic == wins - losses
    mid = mcnemar(first, second)
    own = stats.binom.pmf(wins, wins + losses, 0.5)
    assert mid.p_value == pytest.approx(1.0 if wins == losses else exact - own)
    assert sign_test(first.astype(int) - second.astype(int)).p_value == mid.p_value


@pytest.mark.parametrize("n", [10, 25, 80])
def test_wilcoxon_as_scipy_has_it(n):
    d = RNG.normal(0.3, 1, size=n)
    found = wilcoxon_or_t(d)
    assert found.method == "Wilcoxon"
    assert found.p_value == stats.wilcoxon(d).pvalue
    sums = stats.wilcoxon(d).statistic
    assert abs(found.statistic) == pytest.approx(n * (n + 1) / 2 - 2 * sums)
    assert wilcoxon_or_t(-d).statistic == -found.statistic


def test_wilcoxon_leaves_zeros_out():
    d = np.concatenate([RNG.normal(0.5, 1, size=20), np.zeros(5)])
    assert wilcoxon_or_t(d).p_value == wilcoxon_or_t(d[:20]).p_value
    assert wilcoxon_or_t(np.zeros(12)).p_value == 1
    assert wilcoxon_or_t([0.0] * 11 + [1.0]).p_value == 1
    tied = np.round(RNG.normal(0.5, 1, size=40), 0)
    assert 0 < wilcoxon_or_t(tied).p_value < 1


def test_t_tests_as_scipy_has_them():
    a, b = RNG.normal(0.3, 1, size=7), RNG.normal(0, 2, size=7)
    paired, theirs = paired_t(a - b), stats.ttest_rel(a, b)
    assert (paired.statistic, paired.p_value) == pytest.approx(theirs[:2])
    assert wilcoxon_or_t(a - b) == paired
    free, theirs = welch(a, b[:4]), stats.ttest_ind(a, b[:4], equal_var=False)
    assert (free.statistic, free.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_values_without_scatter():
    assert paired_t([0.0, 0.0]).p_value == 1
    assert paired_t([0.5, 0.5]).p_value == 0
    assert paired_t([-0.5, -0.5]).statistic == -np.inf
    assert welch([1, 1], [1, 1]).p_value == 1
    assert welch([1, 1], [2, 2]).p_value == 0


@pytest.mark.parametrize(
    ("table"),
    [(5, 15, 12, 22), (0, 15, 3, 22), (26, 30, 12, 17), (48, 50, 51, 71), (4, 10, 6, 10)],
)
def test_barnard_as_scipy_has_it(table):
    s, n, r, m = table
    a, b = np.arange(n) < s, np.arange(m) < r
    found, theirs = barnard(a, b), stats.barnard_exact([[s, r], [n - s, m - r]])
    assert found.statistic == pytest.approx(theirs.statistic)
    assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-6)
    assert barnard(b, a).p_value == pytest.approx(found.p_value)


def test_barnard_is_never_below_scipy():
    """Which leaves tables out whose statistic equals the observed one but for rounding."""
    for _ in range(30):
        n, m = (int(k) for k in RNG.integers(3, 20, size=2))
        s, r = int(RNG.integers(n + 1)), int(RNG.integers(m + 1))
        if s / n == r / m in (0, 1):
            continue
        found = barnard(np.arange(n) < s, np.arange(m) < r)
        assert found.p_value >= stats.barnard_exact([[s, r], [n - s, m - r]]).pvalue - 1e-6


def test_barnard_is_a_maximum_over_the_common_rate():
    """Mirror images of a table are as extreme, however their statistics are rounded."""
    a, b = np.arange(10) < 4, np.arange(10) < 7
    found = barnard(a, b)
    k = np.arange(11)
    pool = (k[:, None] + k) / 20
    with np.errstate(invalid="ignore"):
        z = np.nan_to_num((k[:, None] - k) / 10 / np.sqrt(pool * (1 - pool) / 5))
    extreme = np.round(np.abs(z), 9) >= np.round(abs(found.statistic), 9)
    chances = []
    for rate in np.linspace(0.001, 0.999, 999):
        mass = stats.binom.pmf(k, 10, rate)
        chances.append(mass @ extreme @ mass)
    assert found.p_value == pytest.approx(max(chances), abs=1e-6)
    assert barnard(a, a).p_value == 1
    assert barnard(np.ones(5), np.ones(9)).p_value == 1


@pytest.mark.parametrize("digits", [6, 1])
def test_friedman_as_scipy_has_it(digits):
    scores = np.round(RNG.normal([0, 0.2, 0.5, 0.1], 0.5, size=(12, 4)), digits)
    found, theirs = friedman(scores), stats.friedmanchisquare(*scores.T)
    assert (found.statistic, found.p_value) == pytest.approx(theirs)
    assert friedman(scores, higher_is_better=False).statistic == pytest.approx(found.statistic)
    assert friedman(np.ones((3, 3))).p_value == 1


def test_ranks():
    scores = [[0.9, 0.5, 0.1], [0.8, 0.9, 0.1]]
    assert mean_ranks(scores).tolist() == [1.5, 1.5, 3.0]
    assert mean_ranks(scores, higher_is_better=False).tolist() == [2.5, 2.5, 1.0]


def test_all_pairs():
    scores = RNG.normal([0, 1, 1], 0.3, size=(12, 3))
    p = pairwise_p_values(scores)
    assert np.array_equal(p, p.T)
    assert np.diagonal(p).tolist() == [1, 1, 1]
    assert p[0, 2] == wilcoxon_or_t(scores[:, 0] - scores[:, 2]).p_value
    assert pairwise_p_values(scores, sign_test)[1, 2] != p[1, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar([0, 1], [0, 1, 1]), "second must have as many entries as first"),
        (lambda: mcnemar([], []), "first must not be empty"),
        (lambda: mcnemar([0, 2], [0, 1]), "first must hold 0 and 1 only"),
        (lambda: mcnemar([0, np.nan], [0, 1]), "first must be finite"),
        (lambda: sign_test([]), "differences must not be empty"),
        (lambda: paired_t([1.0]), "differences must hold at least 2 values"),
        (lambda: wilcoxon_or_t([1.0, np.nan]), "differences must be finite"),
        (lambda: wilcoxon_or_t([1.0]), "differences must hold at least 2 values"),
        (lambda: welch([1.0, 2.0], [1.0]), "second must hold at least 2 values"),
        (lambda: barnard([0, 1], []), "second must not be empty"),
        (lambda: friedman([[1, 2], [1, 2]]), "scores must have at least 2 rows and 3 columns"),
        (lambda: friedman([[1, 2, np.nan]] * 2), "scores must be finite"),
        (lambda: pairwise_p_values([[1], [2]]), "scores must have at least 2 columns"),
        (lambda: pairwise_p_values([[1, 2]]), "differences must hold at least 2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.slow
def test_mid_p_keeps_its_level_and_is_less_conservative():
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 2000, 40)) < 0.5
    mid = np.mean([mcnemar(a, b).p_value <= 0.05 for a, b in zip(first, second, strict=True)])
    exact = np.mean(
        [mcnemar(a, b, mid_p=False).p_value <= 0.05 for a, b in zip(first, second, strict=True)]
    )
    assert exact < mid <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
