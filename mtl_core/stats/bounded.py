"""Bounded differences: the e-process that bets on them, and the interval that it leaves."""

import math

import numpy as np
import numpy.typing as npt

from mtl_core.errors import ArgumentError
from mtl_core.stats.checks import Array, between, finite, positive, vector
from mtl_core.stats.eprocess import EProcess
from mtl_core.stats.records import Interval

BETS = np.round(np.arange(0.05, 0.925, 0.05), 2)
"""Shares of the capital put on each outcome; the process is the mean over them."""


class BoundedProcess(EProcess):
    """Mean of bounded differences on the same items: IoU, AP, clipped errors, ranged metrics.

    H0: the mean difference is at most 0. E is the mean over λ of Π(1 + λ d_i), d_i the
    differences over `width`.

    Args:
        alpha: as of `EProcess`.
        comparisons: as of `EProcess`.
        width: of the metric's range, so that differences lie in [-width, width]; 1 for scores
            from 0 to 1.
        bets: λ, each between 0 and 1, both excluded. Differences that are small beside `width`
            need small ones.

    >>> process = BoundedProcess()
    >>> process.update([0.9, 0.8, 0.7] * 10, [0.5, 0.5, 0.4] * 10) > 20
    True
    """

    def __init__(
        self,
        alpha: float = 0.05,
        *,
        comparisons: int = 1,
        width: float = 1.0,
        bets: npt.ArrayLike = BETS,
    ) -> None:
        super().__init__(alpha, comparisons=comparisons)
        self.width = positive("width", width)
        self.bets = _checked_bets(bets)
        self.log_capital = np.zeros(len(self.bets))

    def _log_values(self, first: Array, second: Array) -> Array:
        d = _bounded("first - second", (first - second) / self.width)
        capital = self.log_capital[:, None] + log_capital(d, self.bets)
        self.log_capital = capital[:, -1]
        return _log_mean(capital)


def confidence_sequence(
    differences: npt.ArrayLike,
    level: float = 0.95,
    *,
    width: float = 1.0,
    bets: npt.ArrayLike = BETS,
) -> Interval:
    """Interval of the mean of bounded values that may be looked at after every item.

    It holds the means that `BoundedProcess` does not reject, each side at half the error rate,
    and so covers the mean at all looks at once with probability `level`. Against the mean m, a
    value x bets λ(x - m)/(width + m), which is the process itself at m = 0.

    Its width does not fall below about the smallest bet times the variance; for long runs of
    close methods, give smaller `bets`.

    Args:
        differences: (n,) in the order they came, each in [-width, width].
        level: coverage over all looks, between 0 and 1.
        width: as of `BoundedProcess`.
        bets: as of `BoundedProcess`.

    Raises:
        ArgumentError: empty, not finite or out of range.

    >>> found = confidence_sequence([0.2, 0.4, 0.3, 0.1] * 25)
    >>> 0 < found.low < 0.25 < found.high
    True
    """
    d = _bounded("differences", vector("differences", differences) / positive("width", width))
    level, shares = between("level", level, 0, 1), _checked_bets(bets)
    need = math.log(2 / (1 - level))
    low, high = _lower_bound(d, shares, need), -_lower_bound(-d, shares, need)
    return Interval(float(d.mean()) * width, low * width, high * width, level)


def log_capital(differences: Array, bets: Array) -> Array:
    """(bets, n) logarithm of each bet's capital after each of n differences.

    >>> np.exp(log_capital(np.array([1.0, -1.0]), np.array([0.5]))).tolist()
    [[1.5, 0.75]]
    """
    out: Array = np.cumsum(np.log1p(np.outer(bets, differences)), axis=1)
    return out


def _log_mean(capital: Array) -> Array:
    top = capital.max(0)
    out: Array = top + np.log(np.exp(capital - top).mean(0))
    return out


def _checked_bets(bets: npt.ArrayLike) -> Array:
    found = vector("bets", bets)
    if (odd := found[(found <= 0) | (found >= 1)]).size:
        raise ArgumentError("bets", "lie between 0 and 1, both excluded", float(odd[0]))
    return found


def _bounded(name: str, d: Array) -> Array:
    finite(name, d)
    if (odd := d[np.abs(d) > 1 + 1e-12]).size:
        raise ArgumentError(name, "stay within the declared width", f"{float(odd[0]):g} widths")
    out: Array = np.clip(d, -1, 1)
    return out


def _lower_bound(d: Array, bets: Array, need: float) -> float:
    """Largest mean that the values reject from above, by bisection: evidence falls with it."""
    low, high = -1.0, 1.0
    for _ in range(45):
        middle = (low + high) / 2
        gains = (d - middle) / (1 + middle)
        log_e = _log_mean(log_capital(gains, bets))
        low, high = (middle, high) if log_e.max() >= need else (low, middle)
    return low
