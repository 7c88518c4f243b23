"""Tests of two methods, and of several by ranks. All are two-sided."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from mtl_core.errors import ArgumentError
from mtl_core.stats.checks import Array, array, outcomes, same_length, vector
from mtl_core.stats.records import Test

FEWEST_FOR_RANKS = 10
"""Differences from which on `wilcoxon_or_t` uses ranks; below, their steps are too coarse."""


def sign_test(differences: npt.ArrayLike, *, mid_p: bool = True) -> Test:
    """Exact binomial test of wins against losses; ties are left out.

    Args:
        differences: (n,) any numbers, of which only the sign counts.
        mid_p: count half of the outcome's own probability, which takes the conservatism of the
            exact test away (Lancaster 1961); False keeps the guarantee.

    Raises:
        ArgumentError: empty or not finite.

    >>> round(sign_test([1, 1, 1, 1, 1, 1, -1, 0]).p_value, 4)
    0.0703
    """
    d = vector("differences", differences)
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    name = "sign test" + " (mid-p)" * mid_p
    return Test(float(wins - losses), _binomial_p(wins, losses, mid_p), name)


def mcnemar(first: npt.ArrayLike, second: npt.ArrayLike, *, mid_p: bool = True) -> Test:
    """Exact McNemar test: two methods' successes on the same items.

    Only items where the two differ speak. The statistic is their balance, wins of `first` less
    wins of `second`. The mid-p version keeps its level in practice (Fagerland, Lydersen and
    Laake 2013) at more power.

    Args:
        first: (n,) 0 or 1 for each item.
        second: (n,) the same of the other method.
        mid_p: as of `sign_test`.

    Raises:
        ArgumentError: unequal lengths, empty, or values other than 0 and 1.

    >>> round(mcnemar([1, 1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 1, 0, 1]).p_value, 4)
    0.125
    """
    a, b = outcomes("first", first), outcomes("second", second)
    same_length("second", b, "first", a)
    wins, losses = int((a & ~b).sum()), int((~a & b).sum())
    name = "McNemar" + " (mid-p)" * mid_p
    return Test(float(wins - losses), _binomial_p(wins, losses, mid_p), name)


def paired_t(differences: npt.ArrayLike) -> Test:
    """Student's test that paired differences have mean zero.

    Args:
        differences: (n,) first less second, n >= 2.

    Raises:
        ArgumentError: fewer than two, or not finite.

    >>> round(paired_t([0.01, 0.03, 0.02, 0.02]).p_value, 4)
    0.0163
    """
    d = vector("differences", differences, 2)
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    return _student(float(d.mean()), error, len(d) - 1, "paired t")


def wilcoxon_or_t(differences: npt.ArrayLike) -> Test:
    """The default for graded paired values: Wilcoxon's signed ranks from ten on, else paired t.

    Zero differences are left out of the ranks, as Wilcoxon did; where nothing else is left, the
    p-value is 1. It is exact up to fifty differences without ties, else a normal approximation
    with correction for ties. The statistic is the sum of positive less the sum of negative ranks.

    Args:
        differences: (n,) first less second, n >= 2.

    Raises:
        ArgumentError: fewer than two, or not finite.

    >>> wilcoxon_or_t([0.01, 0.03, 0.02, 0.02]).method
    'paired t'
    """
    d = vector("differences", differences, 2)
    if len(d) < FEWEST_FOR_RANKS:
        return paired_t(d)
    d = d[d != 0]
    if len(d) == 0:
        return Test(0.0, 1.0, "Wilcoxon")
    balance = float((np.sign(d) * stats.rankdata(np.abs(d))).sum())
    return Test(balance, float(stats.wilcoxon(d).pvalue), "Wilcoxon")


def welch(first: npt.ArrayLike, second: npt.ArrayLike) -> Test:
    """Welch's test of two means from samples that are not paired.

    Args:
        first: (n,) n >= 2.
        second: (m,) m >= 2.

    Raises:
        ArgumentError: fewer than two values in one, or not finite.

    >>> round(welch([0.70, 0.72, 0.71], [0.68, 0.66, 0.69, 0.67]).p_value, 4)
    0.0101
    """
    a, b = vector("first", first, 2), vector("second", second, 2)
    va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    total = va + vb
    freedom = 1.0
    if total > 0:
        freedom = 1 / ((va / total) ** 2 / (len(a) - 1) + (vb / total) ** 2 / (len(b) - 1))
    return _student(float(a.mean() - b.mean()), math.sqrt(total), freedom, "Welch")


def barnard(first: npt.ArrayLike, second: npt.ArrayLike) -> Test:
    """Barnard's exact test of two success rates on different items.

    With a pooled-variance statistic, the largest p-value over the unknown common rate. Tables whose
    statistics differ by rounding only count as equally extreme; `scipy.stats.barnard_exact` drops
    some of these.

    Args:
        first: (n,) 0 or 1 for each item.
        second: (m,) 0 or 1, of other items.

    Raises:
        ArgumentError: empty, or values other than 0 and 1.

    >>> round(barnard([1] * 9 + [0], [1] * 4 + [0] * 6).p_value, 3)
    0.023
    """
    a, b = outcomes("first", first), outcomes("second", second)
    s, n, r, m = int(a.sum()), len(a), int(b.sum()), len(b)
    wald = _pooled(np.array(s / n), np.array(r / m), n, m)
    if wald == 0:
        return Test(0.0, 1.0, "Barnard")
    every = _pooled(np.arange(n + 1)[:, None] / n, np.arange(m + 1) / m, n, m)
    extreme = np.abs(every) >= abs(float(wald)) - 1e-9  # ties differ by rounding

    def chance(rates: Array) -> Array:
        """Probability of the extreme tables where both succeed at each rate."""
        of_first, of_second = _binomial_masses(n, rates), _binomial_masses(m, rates)
        found: Array = np.einsum("gi,ij,gj->g", of_first, extreme, of_second, optimize=True)
        return found

    return Test(float(wald), min(1.0, _largest(chance)), "Barnard")


def friedman(scores: npt.ArrayLike, *, higher_is_better: bool = True) -> Test:
    """Friedman's test that K methods rank alike over tasks or other blocks, corrected for ties.

    Asks whether there is any difference; pairs come from `pairwise_p_values` afterwards. With
    few tasks it shows little: report each task before.

    Args:
        scores: (N, K) a block a row, a method a column, N >= 2, K >= 3.
        higher_is_better: which end gets rank 1; the test is the same.

    Raises:
        ArgumentError: too few rows or columns, or not finite.

    >>> round(friedman([[3, 2, 1], [3, 2, 1], [3, 1, 2], [3, 2, 1]]).p_value, 4)
    0.0388
    """
    x = array("scores", scores, 2)
    n, k = x.shape
    if n < 2 or k < 3:
        raise ArgumentError("scores", "have at least 2 rows and 3 columns", x.shape)
    ranks = stats.rankdata(-x if higher_is_better else x, axis=1)
    spread = float(np.square(ranks - (k + 1) / 2).sum())
    if spread == 0:
        return Test(0.0, 1.0, "Friedman")
    statistic = (k - 1) * float(np.square(ranks.sum(0) - n * (k + 1) / 2).sum()) / spread
    return Test(statistic, float(special.chdtrc(k - 1, statistic)), "Friedman")


def mean_ranks(scores: npt.ArrayLike, *, higher_is_better: bool = True) -> Array:
    """(K,) mean rank of each method over the blocks of `scores` (N, K); 1 is best.

    >>> mean_ranks([[0.9, 0.8, 0.7], [0.5, 0.6, 0.5]]).tolist()
    [1.75, 1.5, 2.75]
    """
    x = array("scores", scores, 2)
    ranks: Array = stats.rankdata(-x if higher_is_better else x, axis=1).mean(0)
    return ranks


def pairwise_p_values(
    scores: npt.ArrayLike, test: Callable[[Array], Test] = wilcoxon_or_t
) -> Array:
    """(K, K) uncorrected p-values of all pairs of paired columns, 1 on the diagonal.

    Args:
        scores: (n, K) a seed, block or item a row, a method a column.
        test: takes the differences of two columns: `wilcoxon_or_t`, `paired_t`, `sign_test`.

    Raises:
        ArgumentError: fewer than two methods, and whatever `test` raises.

    >>> p = pairwise_p_values([[0.9, 0.8], [0.8, 0.6], [0.9, 0.7]])
    >>> round(float(p[0, 1]), 3), round(float(p[0, 0]), 3)
    (0.038, 1.0)
    """
    x = array("scores", scores, 2)
    methods = x.shape[1]
    if methods < 2:
        raise ArgumentError("scores", "have at least 2 columns, one a method", methods)
    p = np.ones((methods, methods))
    for i in range(methods):
        for j in range(i):
            p[i, j] = p[j, i] = test(x[:, i] - x[:, j]).p_value
    return p


def _binomial_p(wins: int, losses: int, mid_p: bool) -> float:
    n, few = wins + losses, min(wins, losses)
    tail = float(special.bdtr(few, n, 0.5))
    own = float(_binomial_masses(n, np.array([0.5]))[0, few])
    return min(1.0, 2 * tail - own * mid_p)


def _student(mean: float, error: float, freedom: float, name: str) -> Test:
    if error == 0:  # all differences alike
        return Test(math.copysign(math.inf, mean) if mean else 0.0, float(mean == 0), name)
    t = mean / error
    return Test(t, 2 * float(special.stdtr(freedom, -abs(t))), name)


def _pooled(a: Array, b: Array, n: int, m: int) -> Array:
    """Score statistic of the difference of two rates."""
    pool = (n * a + m * b) / (n + m)
    error = np.sqrt(pool * (1 - pool) * (1 / n + 1 / m))
    return np.divide(a - b, error, out=np.zeros(np.broadcast(a, b).shape), where=error > 0)


def _binomial_masses(n: int, rates: Array) -> Array:
    """(G, n + 1) probability of each number of successes in `n` at each of G rates."""
    k = np.arange(n + 1)
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    masses: Array = np.exp(
        ways + special.xlogy(k, rates[:, None]) + special.xlog1py(n - k, -rates[:, None])
    )
    return masses


def _largest(chance: Callable[[Array], Array]) -> float:
    """Maximum of a smooth function of a rate: grid, then three times around its best points."""
    grid = np.linspace(0, 1, 402)[1:-1]
    step = float(grid[1] - grid[0])
    values = chance(grid)
    for _ in range(3):
        best = grid[np.argsort(values)[-5:]]
        grid = np.unique((best[:, None] + np.linspace(-step, step, 21)).ravel())
        grid = grid[(grid > 0) & (grid < 1)]
        values = chance(grid)
        step /= 10
    return float(values.max())
