"""Corrections for many comparisons, of p-values as they come or in matrices of pairs."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.stats.checks import Array, Bools, between, finite, vector

Correction: TypeAlias = Literal["holm", "bonferroni", "none"]


def holm(p_values: npt.ArrayLike) -> Array:
    """Adjusted p-values after Holm 1979: the default.

    Compared with α, they err anywhere in the family with probability of at most α, however the
    tests depend on each other, and reject whatever Bonferroni rejects.

    Args:
        p_values: (m,) 0 to 1.

    Returns:
        (m,) in the order given.

    Raises:
        ArgumentError: empty, or not between 0 and 1.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _probabilities(vector("p_values", p_values))
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(stepped, 1)
    return out


def bonferroni(p_values: npt.ArrayLike) -> Array:
    """P-values times their number, at most 1. Arguments as of `holm`.

    >>> bonferroni([0.01, 0.04, 0.5]).tolist()
    [0.03, 0.12, 1.0]
    """
    p = _probabilities(vector("p_values", p_values))
    out: Array = np.minimum(p * len(p), 1)
    return out


def adjust_pairs(p_values: npt.ArrayLike, correction: Correction = "holm") -> Array:
    """Correct all pairs of methods at once, in one task or in all tasks together.

    Args:
        p_values: (K, K) symmetric, or (T, K, K): then the family is all tasks times all pairs.
        correction: "holm", "bonferroni" or "none".

    Returns:
        The same shape, symmetric, 1 on the diagonals.

    Raises:
        ArgumentError: not square, not symmetric, or not between 0 and 1.
        UnknownNameError: another correction.

    >>> adjust_pairs([[1, 0.01, 0.04], [0.01, 1, 0.03], [0.04, 0.03, 1]]).round(2).tolist()
    [[1.0, 0.03, 0.06], [0.03, 1.0, 0.06], [0.06, 0.06, 1.0]]
    """
    rules: dict[str, Callable[[Array], Array]] = {
        "holm": holm,
        "bonferroni": bonferroni,
        "none": lambda p: p,
    }
    if correction not in rules:
        raise UnknownNameError("correction", correction, rules)
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim not in (2, 3) or p.shape[-1] != p.shape[-2] or p.shape[-1] < 2:
        rule = "be (K, K) or (T, K, K) of at least 2 methods"
        raise ArgumentError("p_values", rule, p.shape)
    finite("p_values", p)
    if not np.array_equal(p, np.swapaxes(p, -1, -2)):
        raise ArgumentError("p_values", "be symmetric", "an entry that differs from its mirror")
    i, j = np.triu_indices(p.shape[-1], 1)
    adjusted = rules[correction](_probabilities(p[..., i, j].ravel()))
    out = np.ones_like(p)
    out[..., i, j] = out[..., j, i] = adjusted.reshape(p[..., i, j].shape)
    return out


def separated(
    p_values: npt.ArrayLike, alpha: float = 0.05, correction: Correction = "holm"
) -> Bools:
    """Which pairs are significantly different, for `compact_letters`.

    Args:
        p_values: (K, K) or (T, K, K), uncorrected, as of `adjust_pairs`.
        alpha: error rate of the family, between 0 and 1.
        correction: as of `adjust_pairs`.

    Returns:
        Booleans of the same shape, False on the diagonals.

    >>> separated([[1, 0.01], [0.01, 1]]).tolist()
    [[False, True], [True, False]]
    """
    found: Bools = adjust_pairs(p_values, correction) <= between("alpha", alpha, 0, 1)
    return found


def _probabilities(p: Array) -> Array:
    if (odd := p[(p < 0) | (p > 1)]).size:
        raise ArgumentError("p_values", "lie between 0 and 1", float(odd[0]))
    return p
