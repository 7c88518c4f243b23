"""E-processes: look at the results as often as you like, and stop when they are clear.

An e-process has a mean of at most 1 under its null hypothesis, whenever one stops. By Ville's
inequality it ever reaches 1/α with a probability of at most α. There is no largest sample size
to fix; the price against a test at a fixed size is some power.

All processes here ask whether the first method is better than the second, one direction each.
With m comparisons each one's threshold is m/α, which holds under any dependence.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from mtl_core.errors import ArgumentError
from mtl_core.stats.checks import Array, between, count, outcomes, positive, same_length, vector

Verdict: TypeAlias = Literal["better", "worse", "undecided"]


class EProcess(ABC):
    """Evidence that the first method is better, updated as results come in.

    Args:
        alpha: chance of ever crossing where it is not better, between 0 and 1.
        comparisons: processes that are judged together, at least 1.

    Raises:
        ArgumentError: an argument out of range.
    """

    def __init__(self, alpha: float = 0.05, *, comparisons: int = 1) -> None:
        self.alpha = between("alpha", alpha, 0, 1)
        self.comparisons = count("comparisons", comparisons)
        self.items = 0
        self.log_e = 0.0
        self.log_peak = 0.0

    def update(self, first: npt.ArrayLike, second: npt.ArrayLike | None = None) -> float:
        """Take results in, in the order given, and give the e-value after them.

        Args:
            first: one value or (n,), results of the first method, or differences.
            second: as many results of the second on the same items; None where `first` holds
                differences.

        Raises:
            ArgumentError: lengths differ, values are not finite or not allowed; nothing is taken
                in then.
        """
        x = vector("first", np.atleast_1d(np.asarray(first)))
        if second is None:
            y: Array = np.zeros(len(x))
        else:
            y = vector("second", np.atleast_1d(np.asarray(second)))
        same_length("second", y, "first", x)
        for value in self._log_values(x, y):
            self.log_e = float(value)
            self.log_peak = max(self.log_peak, self.log_e)
        self.items += len(x)
        return self.e_value

    @abstractmethod
    def _log_values(self, first: Array, second: Array) -> Array:
        """(n,) log e-value after each item; remembers what was seen."""

    @property
    def e_value(self) -> float:
        """Evidence now: the capital of a gambler who began with 1 and bet against the null."""
        return math.exp(min(self.log_e, 700.0))

    @property
    def threshold(self) -> float:
        """Comparisons / α."""
        return self.comparisons / self.alpha

    @property
    def rejected(self) -> bool:
        """Whether the evidence has reached the threshold, now or before."""
        return self.log_peak >= math.log(self.threshold) - 1e-12

    @property
    def p_value(self) -> float:
        """Valid at any time: 1 over the largest e-value so far, at most 1, uncorrected."""
        return math.exp(-self.log_peak)


class SignProcess(EProcess):
    """Wins against losses on the same items: the default for 0/1 results and for seeds.

    H0: P(win | no tie) <= 1/2. The process is the likelihood ratio of a uniform mixture over the
    chance of a win above one half, E = 2^(W+L+1) B(W+1, L+1) [1 - I_1/2(W+1, L+1)]. Six wins in a
    row give 18.1 and seven 31.9, so that seven decide at α = 0.05.

    Only the sign of first - second counts, and ties are ignored. As trials of seeds, each (task,
    seed) block is one item.

    Args:
        alpha: as of `EProcess`.
        comparisons: as of `EProcess`.

    >>> process = SignProcess()
    >>> round(process.update([1] * 6), 1), process.rejected
    (18.1, False)
    >>> round(process.update(1), 1), process.rejected
    (31.9, True)
    """

    def __init__(self, alpha: float = 0.05, *, comparisons: int = 1) -> None:
        super().__init__(alpha, comparisons=comparisons)
        self.wins = 0
        self.losses = 0

    def _log_values(self, first: Array, second: Array) -> Array:
        wins = self.wins + np.cumsum(first > second)
        losses = self.losses + np.cumsum(first < second)
        self.wins, self.losses = int(wins[-1]), int(losses[-1])
        return sign_log_e(wins, losses)


def sign_log_e(wins: npt.ArrayLike, losses: npt.ArrayLike) -> Array:
    """Log e-value of `SignProcess` at numbers of wins and losses, element by element.

    >>> np.exp(sign_log_e([6, 7], [0, 0])).round(1).tolist()
    [18.1, 31.9]
    """
    w, n = np.asarray(wins, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    tail = special.betainc(n + 1, w + 1, 0.5)
    with np.errstate(divide="ignore"):
        out = np.asarray((w + n + 1) * math.log(2) + special.betaln(w + 1, n + 1) + np.log(tail))
    for i in np.argwhere(tail < 1e-290):  # losses by far; E = 2F1(W+L+2, 1; L+2; 1/2) / (2(L+1))
        place = tuple(i)
        out[place] = math.log(_series(float(w[place]), float(n[place]))) - math.log(
            2 * (float(n[place]) + 1)
        )
    return out


class TwoSampleProcess(EProcess):
    """Success rates on different items: one new item of each method at a time.

    H0: the first rate is at most the second. After Turner, Ly and Grünwald 2021 ("Generic
    e-variables for exact sequential k-sample tests that allow for optional stopping"): each pair
    multiplies p1(x1) p2(x2) / (p(x1) p(x2)) by the posterior means before it, p their mean; or 1
    while these do not favour the first. On the same items `SignProcess` needs about half as many.

    Args:
        alpha: as of `EProcess`.
        comparisons: as of `EProcess`.
        prior: both parameters of the Beta prior of each rate.

    >>> process = TwoSampleProcess()
    >>> process.update([1, 1, 1, 0], [0, 1, 0, 0]) > 1
    True
    """

    def __init__(self, alpha: float = 0.05, *, comparisons: int = 1, prior: float = 1.0) -> None:
        super().__init__(alpha, comparisons=comparisons)
        self.prior = positive("prior", prior)
        self.successes = (0, 0)

    def update(self, first: npt.ArrayLike, second: npt.ArrayLike | None = None) -> float:
        """As of `EProcess.update`; both are needed, 0 or 1 each."""
        if second is None:
            raise ArgumentError("second", "be given, since there are no differences here", None)
        return super().update(first, second)

    def _log_values(self, first: Array, second: Array) -> Array:
        both = np.stack([outcomes("first", first), outcomes("second", second)])
        before = np.cumsum(both, axis=1) - both + np.array(self.successes)[:, None]
        seen = self.items + np.arange(len(first))
        rates = (before + self.prior) / (seen + 2 * self.prior)
        self.successes = (
            self.successes[0] + int(both[0].sum()),
            self.successes[1] + int(both[1].sum()),
        )
        return self.log_e + np.cumsum(two_sample_log_factors(both, rates))


def two_sample_log_factors(both: npt.NDArray[np.bool_], rates: Array) -> Array:
    """(...) log factors of `TwoSampleProcess`.

    Args:
        both: (2, ...) successes of the first and second method.
        rates: (2, ...) the estimates before them.

    >>> two_sample_log_factors(np.array([[True], [False]]), np.array([[0.5], [0.5]])).tolist()
    [0.0]
    """
    middle = rates.mean(0)
    likely = np.where(both, rates, 1 - rates)
    factors = np.log(likely / np.where(both, middle, 1 - middle)).sum(0)
    out: Array = np.where(rates[0] > rates[1], factors, 0.0)
    return out


class TwoDirections:
    """Two processes, one for better and one for worse.

    For rankings each has half of α, so that the chance of any false verdict stays within α. For
    the question whether a new method is better than the baseline, each side may have all of it.

    Args:
        process: makes one direction at a given α: `SignProcess`, or a function such as
            ``lambda alpha: BoundedProcess(alpha, width=100)``.
        alpha: chance of a false verdict, between 0 and 1.
        sides: 2 halves α, 1 leaves it.

    Raises:
        ArgumentError: `sides` is neither 1 nor 2, or `alpha` is out of range.

    >>> race = TwoDirections(SignProcess)
    >>> race.update([0.1, 0.2, 0.3] * 3, [0.4, 0.4, 0.4] * 3)
    'worse'
    """

    def __init__(
        self,
        process: Callable[[float], EProcess],
        alpha: float = 0.05,
        *,
        sides: Literal[1, 2] = 2,
    ) -> None:
        if sides not in (1, 2):
            raise ArgumentError("sides", "be 1 or 2", sides)
        self.better = process(alpha / sides)
        self.worse = process(alpha / sides)

    def update(self, first: npt.ArrayLike, second: npt.ArrayLike | None = None) -> Verdict:
        """Take results in, as of `EProcess.update`, and give the verdict so far."""
        self.better.update(first, second)
        x = np.asarray(first, dtype=np.float64)
        self.worse.update(np.zeros(x.shape) if second is None else second, x)
        return self.verdict

    @property
    def verdict(self) -> Verdict:
        """What is decided; where both sides crossed, the one that crossed further."""
        if not (self.better.rejected or self.worse.rejected):
            return "undecided"
        return "better" if self.better.log_peak >= self.worse.log_peak else "worse"


def reject(e_values: npt.ArrayLike, alpha: float = 0.05) -> npt.NDArray[np.bool_]:
    """Which of m e-values reach m/α (Bonferroni's rule, under any dependence).

    Args:
        e_values: (m,) each of its own process, at least 0.
        alpha: chance of any false rejection.

    Raises:
        ArgumentError: empty, negative or NaN; infinite is allowed.

    >>> reject([50.0, 30.0, 1.0]).tolist()
    [False, False, False]
    """
    e = np.atleast_1d(np.asarray(e_values, dtype=np.float64))
    if e.ndim != 1 or e.size == 0:
        raise ArgumentError("e_values", "be a row of at least one", e.shape)
    if np.isnan(e).any() or (e < 0).any():
        raise ArgumentError("e_values", "be at least 0", float(e[np.isnan(e) | (e < 0)][0]))
    found: npt.NDArray[np.bool_] = e >= len(e) / between("alpha", alpha, 0, 1)
    return found


def _series(wins: float, losses: float) -> float:
    """2F1(W+L+2, 1; L+2; 1/2) where losses are far more than wins, so that it converges fast."""
    total, term, k = 1.0, 1.0, 0
    while term > 1e-17 * total:
        term *= (wins + losses + 2 + k) / (2 * (losses + 2 + k))
        total += term
        k += 1
    return total
