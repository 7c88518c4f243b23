"""Intervals in closed form: means over seeds, and rates over test items."""

import math

import numpy.typing as npt
from scipy import special

from mtl_core.stats.checks import between, successes_of, vector
from mtl_core.stats.records import Interval


def t_quantile(freedom: float, level: float) -> float:
    """Half width of a central Student interval in standard errors.

    >>> round(t_quantile(9, 0.95), 3)
    2.262
    """
    return float(special.stdtrit(freedom, 0.5 + level / 2))


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of a mean: the default over seeds.

    Three Gaussian seeds are covered as promised, where the percentile bootstrap of three values
    covers three quarters. It contains what differs between the values: with seeds, the training
    randomness on one test set.

    Args:
        values: (S,) at least two, one a seed.
        level: coverage, between 0 and 1.

    Raises:
        ArgumentError: fewer than two values, or one that is not finite.

    >>> found = t_interval([0.70, 0.72, 0.71])
    >>> round(found.estimate, 3), round(found.low, 3), round(found.high, 3)
    (0.71, 0.685, 0.735)
    """
    x, level = vector("values", values, 2), between("level", level, 0, 1)
    mean = float(x.mean())
    half = t_quantile(len(x) - 1, level) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Interval(mean, mean - half, mean + half, level)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Score interval of a rate (Wilson 1927): the default for accuracy of one model on n items.

    It covers about `level` on average over rates; `clopper_pearson` at least that, always. The
    items have to be independent: where they come in clusters, use `bca` with them.

    Args:
        successes: 0 to `n`.
        n: items, at least 1.
        level: coverage, between 0 and 1.

    >>> found = wilson(90, 100)
    >>> round(found.low, 3), round(found.high, 3)
    (0.826, 0.945)
    """
    s, n = successes_of("successes", successes, "n", n)
    level = between("level", level, 0, 1)
    z2 = float(special.ndtri(0.5 + level / 2)) ** 2
    rate = s / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if s == 0 else centre - half
    return Interval(rate, low, 1.0 if s == n else centre + half, level)


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a rate (Clopper and Pearson 1934): covers at least `level`.

    Args:
        successes: 0 to `n`.
        n: items, at least 1.
        level: coverage, between 0 and 1.

    >>> round(clopper_pearson(0, 100).high, 4)
    0.0362
    """
    s, n = successes_of("successes", successes, "n", n)
    tail = (1 - between("level", level, 0, 1)) / 2
    low = 0.0 if s == 0 else float(special.betaincinv(s, n - s + 1, tail))
    high = 1.0 if s == n else float(special.betaincinv(s + 1, n - s, 1 - tail))
    return Interval(s / n, low, high, level)
