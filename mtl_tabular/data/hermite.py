"""Closed forms of polynomials of a Gaussian: moments, covariances and quantiles of labels.

A label is y = u + u² + ... + uᵏ + noise, where u is a standard Gaussian projection of the
features. In probabilists' Hermite polynomials y = Σ_m c_m He_m(u) + noise, and E[He_m(u) He_n(v)]
is m! pᵐ for m = n and 0 otherwise, p being the correlation of the Gaussians u and v (Mehler).
"""

from collections.abc import Sequence
from math import factorial, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mtl_core.errors import ArgumentError

MAX_DEGREE = 12
"""Largest degree; beyond it a few rows of a million make up all of a label's variance."""


def hermite_coefficients(degree: int) -> NDArray[np.float64]:
    """Coefficients c_0..c_k (k + 1,) of u + u² + ... + uᵏ in probabilists' Hermite polynomials.

    Args:
        degree: k, in 1..`MAX_DEGREE`.

    >>> hermite_coefficients(4).tolist()
    [4.0, 4.0, 7.0, 1.0, 1.0]
    """
    if not 1 <= degree <= MAX_DEGREE:
        raise ArgumentError("degree", f"lie in 1..{MAX_DEGREE}", degree)
    found = np.zeros(degree + 1)
    for k in range(1, degree + 1):
        for j in range(k // 2 + 1):
            found[k - 2 * j] += factorial(k) / (2**j * factorial(j) * factorial(k - 2 * j))
    return found


def signal_mean(degree: int) -> float:
    """Mean of u + ... + uᵏ.

    >>> [signal_mean(k) for k in (1, 2, 3, 4)]
    [0.0, 1.0, 1.0, 4.0]
    """
    return float(hermite_coefficients(degree)[0])


def signal_covariance(degree: int, other: int, correlation: float) -> float:
    """Covariance of two noise-free labels whose projections have the given correlation.

    Args:
        degree: of the one label.
        other: degree of the other.
        correlation: of their projections, in [-1, 1].

    >>> [signal_covariance(k, k, 1.0) for k in (1, 2, 3, 4)]
    [1.0, 3.0, 24.0, 144.0]
    """
    if not -1 <= correlation <= 1:
        raise ArgumentError("correlation", "lie in [-1, 1]", correlation)
    one, two = hermite_coefficients(degree), hermite_coefficients(other)
    terms = (
        one[m] * two[m] * factorial(m) * correlation**m for m in range(1, min(degree, other) + 1)
    )
    return float(sum(terms))


def signal_variance(degree: int) -> float:
    """Variance of u + ... + uᵏ."""
    return signal_covariance(degree, degree, 1.0)


def label_covariance(
    degrees: Sequence[int], noise: Sequence[float], correlation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Covariance matrix (T, T) of the labels, noise included.

    Args:
        degrees: of T labels.
        noise: standard deviation of the independent noise of each.
        correlation: (T, T) of the projections.
    """
    count = len(degrees)
    found = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            p = float(np.clip(correlation[i, j], -1, 1)) if i != j else 1.0
            found[i, j] = signal_covariance(degrees[i], degrees[j], p)
    found += np.diag(np.square(np.asarray(noise, dtype=np.float64)))
    return found


def best_explained_variance(degree: int, noise: float) -> float:
    """Explained variance that no model exceeds: 1 - q² / Var(y)."""
    return 1.0 - noise**2 / (signal_variance(degree) + noise**2)


def linear_explained_variance(degree: int, noise: float) -> float:
    """Explained variance of the best linear model: c_1² / Var(y).

    >>> round(linear_explained_variance(3, 0.0), 4)
    0.6667
    """
    return float(hermite_coefficients(degree)[1]) ** 2 / (signal_variance(degree) + noise**2)


def difficulty_score(explained_variance: float, degree: int, noise: float) -> float:
    """What a model explains of the variance that the best linear one leaves: 1 - (1-EV)/(1-EV_lin).

    1 is perfect, 0 as good as linear, negative worse. NaN for degree 1, where linear is the best
    there is and any ratio would be one of noise.

    Args:
        explained_variance: of the model on this task.
        degree: of the task.
        noise: standard deviation of its noise, in the unit of the raw label.
    """
    if degree == 1:
        return float("nan")
    return 1.0 - (1.0 - explained_variance) / (1.0 - linear_explained_variance(degree, noise))


_GRID = ndtri((np.arange(1 << 15) + 0.5) / (1 << 15))


def label_quantiles(degree: int, noise: float, levels: Sequence[float]) -> tuple[float, ...]:
    """Quantiles of u + ... + uᵏ + noise, by bisection of its distribution function.

    The share of labels below a returned value is the asked-for level to about 1e-4.

    Args:
        degree: k.
        noise: standard deviation of the noise.
        levels: in (0, 1).
    """
    signal = np.polyval([1.0] * degree + [0.0], _GRID)

    def below(value: float) -> float:
        if noise > 0:
            return float(ndtr((value - signal) / noise).mean())
        return float((signal <= value).mean())

    found = []
    for level in levels:
        if not 0 < level < 1:
            raise ArgumentError("levels", "lie in (0, 1)", level)
        low = float(signal.min()) - 10 * noise - 1
        high = float(signal.max()) + 10 * noise + 1
        while high - low > 1e-7 * sqrt(signal_variance(degree) + noise**2):
            middle = (low + high) / 2
            low, high = (middle, high) if below(middle) < level else (low, middle)
        found.append((low + high) / 2)
    return tuple(found)
