"""Seeds by items: one interval that contains training randomness and the test sample."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_core.errors import ArgumentError
from mtl_core.stats.checks import array, between
from mtl_core.stats.intervals import t_quantile
from mtl_core.stats.records import Interval


@dataclass(frozen=True)
class Components:
    """Standard deviations of a two-way layout of scores.

    Attributes:
        seed: between trained networks, on infinitely many items.
        item: between items, over infinitely many networks.
        residual: what is left: networks that differ on different items.
    """

    seed: float
    item: float
    residual: float


def variance_components(values: npt.ArrayLike) -> Components:
    """Where the scatter of scores comes from; negative variances are taken for zero.

    Args:
        values: (S, n) score of each seed on each item, S >= 2 and n >= 2; for two methods, their
            difference.

    Raises:
        ArgumentError: fewer seeds or items, or not finite.

    >>> found = variance_components([[0.1, 0.5, 0.9], [0.3, 0.7, 1.1]])
    >>> round(found.seed, 3), round(found.item, 3), round(found.residual, 3)
    (0.141, 0.4, 0.0)
    """
    (of_seeds, of_items, residual), (s, n) = _mean_squares(values)
    between_seeds = max(0.0, of_seeds - residual) / n
    between_items = max(0.0, of_items - residual) / s
    return Components(between_seeds**0.5, between_items**0.5, residual**0.5)


def seeds_by_items(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the mean over other seeds and other items.

    Its variance is σ_seed²/S + σ_item²/n + σ_residual²/(S n) from the two-way layout, its
    degrees of freedom after Satterthwaite 1946. Means over seeds alone leave the second term out,
    and a bootstrap over the items of one network the first.

    Args:
        values: (S, n) as of `variance_components`.
        level: coverage, between 0 and 1.

    Raises:
        ArgumentError: as of `variance_components`.

    >>> found = seeds_by_items([[0.1, 0.5, 0.9], [0.3, 0.7, 1.1]])
    >>> round(found.estimate, 3)
    0.6
    """
    (of_seeds, of_items, residual), (s, n) = _mean_squares(values)
    level = between("level", level, 0, 1)
    mean = float(np.mean(np.asarray(values, dtype=np.float64)))
    seeds, items = max(of_seeds, residual), max(of_items, residual)
    total = seeds + items - residual
    if total == 0:
        return Interval(mean, mean, mean, level)
    scatter = seeds**2 / (s - 1) + items**2 / (n - 1) + residual**2 / ((s - 1) * (n - 1))
    half = t_quantile(total**2 / scatter, level) * math.sqrt(total / (s * n))
    return Interval(mean, mean - half, mean + half, level)


def _mean_squares(values: npt.ArrayLike) -> tuple[tuple[float, float, float], tuple[int, int]]:
    """Mean squares of seeds, items and residuals, and the numbers of seeds and items."""
    x = array("values", values, 2)
    s, n = x.shape
    if s < 2 or n < 2:
        raise ArgumentError("values", "hold at least 2 seeds (rows) and 2 items (columns)", x.shape)
    mean, of_seeds, of_items = x.mean(), x.mean(1), x.mean(0)
    rest = x - of_seeds[:, None] - of_items + mean
    squares = (
        n * float(np.square(of_seeds - mean).sum()) / (s - 1),
        s * float(np.square(of_items - mean).sum()) / (n - 1),
        float(np.square(rest).sum()) / ((s - 1) * (n - 1)),
    )
    return squares, (s, n)
