"""Power before the run: what a number of seeds can show.

For the paired two-sided Student test, the default over seeds, from the non-central t.
"""

import math

from scipy import optimize, stats

from mtl_core.errors import ArgumentError
from mtl_core.stats.checks import between, count, positive
from mtl_core.stats.intervals import t_quantile

MOST_SEEDS = 1_000_000
"""Where `seeds_needed` gives up."""


def power(effect: float, sd: float, seeds: int, alpha: float = 0.05) -> float:
    """Chance that the test finds a true effect.

    Args:
        effect: mean of the paired differences; its sign does not matter.
        sd: their standard deviation over seeds, above 0.
        seeds: at least 2.
        alpha: error rate of the test, divided beforehand by the comparisons of a family.

    Raises:
        ArgumentError: an argument out of range.

    >>> round(power(effect=0.01, sd=0.01, seeds=10), 2)
    0.8
    """
    if not math.isfinite(effect):
        raise ArgumentError("effect", "be finite", effect)
    n = count("seeds", seeds, 2)
    shift = abs(effect) / positive("sd", sd) * math.sqrt(n)
    critical = t_quantile(n - 1, 1 - between("alpha", alpha, 0, 1))
    if shift > 1e3 * max(1.0, critical):
        return 1.0
    above, below = stats.nct.sf(critical, n - 1, shift), stats.nct.cdf(-critical, n - 1, shift)
    return min(1.0, float(above) + float(below))


def smallest_effect(sd: float, seeds: int, alpha: float = 0.05, *, chance: float = 0.8) -> float:
    """Smallest true effect that `seeds` seeds find with probability `chance`.

    Args:
        sd: standard deviation of the paired differences over seeds; 1 gives the effect in
            paired standard deviations.
        seeds: at least 2.
        alpha: as of `power`.
        chance: wanted power, above alpha and below 1.

    Raises:
        ArgumentError: an argument out of range.

    >>> [round(smallest_effect(1.0, seeds), 2) for seeds in (3, 5, 10, 20)]
    [3.26, 1.68, 1.0, 0.66]
    """
    between("chance", chance, between("alpha", alpha, 0, 1), 1)
    high = 1.0
    while power(high, 1.0, seeds, alpha) < chance:
        high *= 2
    found = optimize.brentq(lambda e: power(e, 1.0, seeds, alpha) - chance, 0.0, high)
    return float(found) * positive("sd", sd)


def seeds_needed(effect: float, sd: float, alpha: float = 0.05, *, chance: float = 0.8) -> int:
    """Fewest seeds that find `effect` with probability `chance`.

    Args:
        effect: true mean of the paired differences, not 0.
        sd: their standard deviation over seeds.
        alpha: as of `power`.
        chance: wanted power, above alpha and below 1.

    Raises:
        ArgumentError: an argument out of range, or more than a million seeds would be needed.

    >>> seeds_needed(effect=0.01, sd=0.01)
    10
    """
    between("chance", chance, between("alpha", alpha, 0, 1), 1)
    high = 2
    while power(effect, sd, high, alpha) < chance:
        high *= 2
        if high > MOST_SEEDS:
            rule = f"be large enough to be seen within {MOST_SEEDS} seeds"
            raise ArgumentError("effect", rule, effect)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, sd, middle, alpha) >= chance else (middle, high)
    return max(high, 2)
