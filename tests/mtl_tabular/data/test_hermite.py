"""Closed forms against Gauss-Hermite quadrature, which is exact for polynomials."""

import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_tabular.data.hermite import (
    best_explained_variance,
    difficulty_score,
    hermite_coefficients,
    label_covariance,
    label_quantiles,
    linear_explained_variance,
    signal_covariance,
    signal_mean,
    signal_variance,
)

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(30)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def signal(degree, u):
    return sum(u**m for m in range(1, degree + 1))


def expect(values):
    return float((WEIGHTS * values).sum())


@pytest.mark.parametrize("degree", range(1, 9))
def test_coefficients_rebuild_the_polynomial(degree):
    rebuilt = np.polynomial.hermite_e.hermeval(NODES, hermite_coefficients(degree))
    np.testing.assert_allclose(rebuilt, signal(degree, NODES), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("degree", range(1, 9))
def test_moments(degree):
    y = signal(degree, NODES)
    assert signal_mean(degree) == pytest.approx(expect(y), abs=1e-9)
    assert signal_variance(degree) == pytest.approx(expect((y - expect(y)) ** 2), rel=1e-9)


@pytest.mark.parametrize("p", [-1.0, -0.3, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("pair", [(1, 4), (2, 4), (3, 3), (2, 1)])
def test_covariance(pair, p):
    u = NODES[:, None]
    v = p * NODES[:, None] + np.sqrt(1 - p**2) * NODES[None, :]
    both = WEIGHTS[:, None] * WEIGHTS[None, :]
    y, z = signal(pair[0], u), signal(pair[1], v)
    exact = (both * y * z).sum() - (both * y).sum() * (both * z).sum()
    assert signal_covariance(*pair, p) == pytest.approx(exact, abs=1e-8)


def test_the_published_variances_and_noise():
    found = label_covariance([1, 2, 3, 4], [0.5] * 4, np.eye(4))
    np.testing.assert_allclose(np.diag(found), [1.25, 3.25, 24.25, 144.25])


def test_explained_variance_bounds_and_score():
    """A linear model of degree 1 is the best there is; above, the score spans linear to perfect."""
    assert linear_explained_variance(1, 0.3) == pytest.approx(best_explained_variance(1, 0.3))
    for degree in (2, 3, 4):
        linear = linear_explained_variance(degree, 0.1)
        assert 0 < linear < best_explained_variance(degree, 0.1) < 1
        assert difficulty_score(linear, degree, 0.1) == pytest.approx(0)
        assert difficulty_score(1.0, degree, 0.1) == 1
    assert np.isnan(difficulty_score(0.9, 1, 0.1))


@pytest.mark.parametrize("noise", [0.0, 0.7])
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_quantiles_cut_off_the_asked_for_share(degree, noise):
    rng = np.random.default_rng(0)
    y = signal(degree, rng.standard_normal(200_000)) + noise * rng.standard_normal(200_000)
    levels = (0.05, 0.5, 0.9)
    for level, border in zip(levels, label_quantiles(degree, noise, levels), strict=True):
        assert abs((y < border).mean() - level) < 4 * np.sqrt(level * (1 - level) / 200_000) + 1e-4


def test_refusals():
    with pytest.raises(ArgumentError, match="degree"):
        hermite_coefficients(0)
    with pytest.raises(ArgumentError, match="correlation"):
        signal_covariance(1, 2, 1.5)
    with pytest.raises(ArgumentError, match="levels"):
        label_quantiles(2, 0.0, (1.0,))
