"""Bayesian comparison of two methods: how probable are worse, practically equal and better.

Three numbers, always: a margin below which a difference does not matter (region of practical
equivalence) splits the posterior of first less second. A decision needs 0.95 in one of them
(`Chances.decision`). Without a margin, "equal" has no mass.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

from mtl_core.errors import ArgumentError
from mtl_core.stats.bootstrap import chunks, cluster_places
from mtl_core.stats.checks import (
    Array,
    between,
    count,
    not_negative,
    outcomes,
    same_length,
    successes_of,
    vector,
)
from mtl_core.stats.records import Chances, Interval

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
TAILS = np.array([1e-14, 1e-10, 1e-7, 1e-4, 0.01, 0.1, 0.3, 0.5])


def rate_posterior(successes: int, n: int, level: float = 0.95) -> Interval:
    """Posterior mean and central interval of a success rate, Beta(1 + s, 1 + f).

    Args:
        successes: 0 to `n`.
        n: items, at least 1.
        level: posterior mass of the interval.

    >>> round(rate_posterior(8, 10).estimate, 3)
    0.75
    """
    s, n = successes_of("successes", successes, "n", n)
    tail = (1 - between("level", level, 0, 1)) / 2
    low, high = special.betaincinv(s + 1, n - s + 1, [tail, 1 - tail])
    return Interval((s + 1) / (n + 2), float(low), float(high), level)


def better_rate(
    first: int, n_first: int, second: int, n_second: int, margin: float = 0.0
) -> Chances:
    """Two success rates on different items: posterior of their difference, integrated exactly.

    Args:
        first: successes of the first method.
        n_first: its items.
        second: successes of the second.
        n_second: its items.
        margin: difference of rates that does not matter.

    Raises:
        ArgumentError: counts that do not fit, or a negative margin.

    >>> round(better_rate(45, 50, 35, 50).better, 3)
    0.993
    """
    s, n = successes_of("first", first, "n_first", n_first)
    r, m = successes_of("second", second, "n_second", n_second)
    margin = not_negative("margin", margin)
    one, two = (s + 1, n - s + 1), (r + 1, m - r + 1)
    return _split(_rate_above(one, two, margin), _rate_above(two, one, margin))


def paired_outcomes(first: npt.ArrayLike, second: npt.ArrayLike, margin: float = 0.0) -> Chances:
    """Successes of two methods on the same items.

    The four outcomes of an item (both, only the first, only the second, none) have a uniform
    Dirichlet prior; compared is the probability of "only the first" with "only the second",
    whose difference is the difference of the two rates.

    Args:
        first: (n,) 0 or 1.
        second: (n,) 0 or 1, of the same items.
        margin: difference of rates that does not matter.

    Raises:
        ArgumentError: unequal lengths, empty, values other than 0 and 1, a negative margin.

    >>> round(paired_outcomes([1, 1, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0]).better, 3)
    0.969
    """
    a, b = outcomes("first", first), outcomes("second", second)
    same_length("second", b, "first", a)
    margin = not_negative("margin", margin)
    wins, losses = int((a & ~b).sum()), int((~a & b).sum())
    differ = (wins + losses + 2, len(a) - wins - losses + 2)
    return _split(
        _share_above(wins, losses, differ, margin), _share_above(losses, wins, differ, margin)
    )


def graded_posterior(
    values: npt.ArrayLike,
    levels: npt.ArrayLike,
    level: float = 0.95,
    *,
    draws: int = 20_000,
    seed: int = 0,
) -> Interval:
    """Posterior of the mean of graded scores, uniform Dirichlet over their levels.

    Args:
        values: (n,) scores, each one of `levels`.
        levels: (K,) every score that can occur, such as 0, 1/3, 2/3, 1 for three milestones.
        level: posterior mass of the interval.
        draws: from the posterior, for the bounds; the estimate is exact.
        seed: of the draws.

    Raises:
        ArgumentError: a score is not a level, levels repeat or are fewer than two.

    >>> round(graded_posterior([1, 1, 0.5, 0], [0, 0.5, 1]).estimate, 3)
    0.571
    """
    at, counts = _counted("values", values, levels)
    tail = (1 - between("level", level, 0, 1)) / 2
    means = np.random.default_rng(seed).dirichlet(counts + 1, count("draws", draws)) @ at
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = float(at @ (counts + 1)) / float(counts.sum() + len(at))
    return Interval(mean, float(low), float(high), level)


def graded(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    levels: npt.ArrayLike,
    margin: float = 0.0,
    *,
    draws: int = 100_000,
    seed: int = 0,
) -> Chances:
    """Means of graded scores on different items; for the same items see `bayesian_bootstrap`.

    Args:
        first: (n,) scores of one method, each one of `levels`.
        second: (m,) scores of the other.
        levels: (K,) as of `graded_posterior`.
        margin: difference of means that does not matter.
        draws: from the posterior; 100 000 leave an error of about 0.0007 at 0.95.
        seed: of the draws.

    Raises:
        ArgumentError: as of `graded_posterior`, or a negative margin.

    >>> found = graded([1, 1, 0.5, 1, 1, 1], [0, 0.5, 0, 1, 0, 0], [0, 0.5, 1])
    >>> found.better > 0.97
    True
    """
    margin, draws = not_negative("margin", margin), count("draws", draws)
    rng = np.random.default_rng(seed)
    means = []
    for name, values in (("first", first), ("second", second)):
        at, counts = _counted(name, values, levels)
        means.append(rng.dirichlet(counts + 1, draws) @ at)
    return _of_draws(means[0] - means[1], margin)


def bayesian_bootstrap(
    differences: npt.ArrayLike,
    margin: float = 0.0,
    clusters: npt.ArrayLike | None = None,
    *,
    draws: int = 20_000,
    seed: int = 0,
) -> Chances:
    """Mean of paired differences of any score, by random weights of the items (Rubin 1981).

    Weights are Dirichlet(1, ..., 1). With few items it is too sure, as every bootstrap is; for
    seeds take `correlated_t`.

    Args:
        differences: (n,) first less second on each item, n >= 2.
        margin: mean difference that does not matter.
        clusters: (n,) image, patient, ... of each item; these share a weight.
        draws: from the posterior; 20 000 leave an error of about 0.0015 at 0.95.
        seed: of the draws.

    Raises:
        ArgumentError: fewer than two items or clusters, not finite, a negative margin.

    >>> found = bayesian_bootstrap([0.1, 0.2, 0.0, 0.3, -0.1, 0.2], margin=0.05)
    >>> round(found.better, 1)
    0.9
    """
    d = vector("differences", differences, 2)
    margin, draws = not_negative("margin", margin), count("draws", draws)
    places = cluster_places(clusters, d)
    sums, sizes = np.array([[d[p].sum(), len(p)] for p in places]).T
    rng, means = np.random.default_rng(seed), np.empty(draws)
    for part in chunks(draws, len(places)):
        weights = rng.standard_exponential((part.stop - part.start, len(places)))
        means[part] = weights @ sums / (weights @ sizes)
    return _of_draws(means, margin)


def correlated_t(
    differences: npt.ArrayLike, correlation: float = 0.0, margin: float = 0.0
) -> Chances:
    """Mean of differences over seeds (uncorrelated) or over folds that share training data.

    A Student posterior with n - 1 degrees of freedom, centre d̄ and scale² s²(1/n + ρ/(1 − ρ))
    (Corani and Benavoli 2015, on Nadeau and Bengio 2003).

    Args:
        differences: (n,) first less second in each seed or fold, n >= 2.
        correlation: ρ of two differences, 0 <= ρ < 1: 0 for seeds, 1/folds for cross-validation,
            the share of test rows for repeated hold-out.
        margin: mean difference that does not matter.

    Raises:
        ArgumentError: fewer than two, not finite, correlation or margin out of range.

    >>> found = correlated_t([0.02, 0.03, 0.01, 0.03, 0.02], correlation=0.2, margin=0.01)
    >>> round(found.better, 3), round(found.equal, 3)
    (0.95, 0.047)
    """
    d = vector("differences", differences, 2)
    margin = not_negative("margin", margin)
    if not 0 <= correlation < 1:
        raise ArgumentError("correlation", "be at least 0 and below 1", correlation)
    n, mean = len(d), float(d.mean())
    scale = math.sqrt(float(d.var(ddof=1)) * (1 / n + correlation / (1 - correlation)))
    if scale == 0:
        return _split(float(mean > margin), float(mean < -margin))
    return _split(
        float(special.stdtr(n - 1, (mean - margin) / scale)),
        float(special.stdtr(n - 1, (-mean - margin) / scale)),
    )


def _split(better: float, worse: float) -> Chances:
    return Chances(worse=worse, equal=max(0.0, 1 - better - worse), better=better)


def _of_draws(differences: Array, margin: float) -> Chances:
    return _split(float((differences > margin).mean()), float((differences < -margin).mean()))


def _counted(name: str, values: npt.ArrayLike, levels: npt.ArrayLike) -> tuple[Array, Array]:
    at, x = np.sort(vector("levels", levels, 2)), vector(name, values)
    if (np.diff(at) == 0).any():
        raise ArgumentError("levels", "differ from each other", at.tolist())
    place = np.abs(x[:, None] - at).argmin(1)
    if (odd := x[~np.isclose(at[place], x, rtol=1e-9, atol=1e-9)]).size:
        raise ArgumentError(name, f"hold levels only ({at.tolist()})", float(odd[0]))
    return at, np.bincount(place, minlength=len(at)).astype(np.float64)


def _quantiles(a: float, b: float) -> Array:
    """Where a Beta's mass lies, tails included."""
    lower, upper = special.betaincinv(a, b, TAILS), 1 - special.betaincinv(b, a, TAILS)
    return np.concatenate([[0.0], lower, upper[::-1], [1.0]])


def _integral(of: Callable[[Array], Array], a: float, b: float, edges: Array) -> float:
    """∫ Beta(x; a, b) of(x) dx by Gauss-Legendre rules between `edges`."""
    cuts = np.unique(np.clip(np.concatenate([_quantiles(a, b), edges]), 0, 1))
    half = np.diff(cuts)[:, None] / 2
    x = cuts[:-1, None] + half * (1 + NODES)
    density = special.xlogy(a - 1, x) + special.xlog1py(b - 1, -x) - special.betaln(a, b)
    return float(np.clip((half * WEIGHTS * np.exp(density) * of(x)).sum(), 0, 1))


def _rate_above(one: tuple[int, int], two: tuple[int, int], margin: float) -> float:
    """P(p_1 - p_2 > margin) of two independent Betas."""
    a, b = one

    def survival(x: Array) -> Array:
        out: Array = special.betainc(b, a, np.clip(1 - x - margin, 0, 1))
        return out

    return _integral(survival, *two, _quantiles(a, b) - margin)


def _share_above(wins: int, losses: int, differ: tuple[int, int], margin: float) -> float:
    """P(θ_wins - θ_losses > margin), from θ_wins + θ_losses = s and θ_wins / s."""
    a, b = wins + 1, losses + 1
    if margin == 0:
        return float(special.betainc(b, a, 0.5))

    def survival(s: Array) -> Array:
        out: Array = special.betainc(b, a, np.clip((1 - margin / s) / 2, 0, 1))
        return out

    shares = _quantiles(a, b)
    return _integral(survival, *differ, margin / (2 * shares[shares > 0.5] - 1))
