"""Every derivative against central differences; shares; steps."""

import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.objectives import (
    Logistic,
    Softmax,
    Squared,
    group_shares,
    initial_theta,
    sigmoid,
    softmax,
    stage_derivatives,
    theta_derivatives,
    theta_step,
)

LOSSES = [Squared(), Logistic(), Softmax(3)]
IDS = ["squared", "logistic", "softmax"]
n, T = 40, 4


def targets(loss, rng):
    if isinstance(loss, Squared):
        return rng.normal(size=n)
    return rng.integers(0, max(2, loss.outputs), n)


def differences(function, x, step=1e-5):
    """Central differences of a function (..) -> (n,) by each entry of x (n, K), row by row."""
    out = np.empty_like(x)
    for k in range(x.shape[1]):
        shift = np.zeros_like(x)
        shift[:, k] = step
        out[:, k] = (function(x + shift) - function(x - shift)) / (2 * step)
    return out


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_gradient_and_hessian(loss):
    rng = np.random.default_rng(0)
    F, y = rng.normal(size=(n, loss.outputs)), targets(loss, rng)
    numeric = differences(lambda z: loss.value(z, y), F)
    np.testing.assert_allclose(loss.gradient(F, y), numeric, rtol=1e-6, atol=1e-8)
    for k in range(loss.outputs):
        second = differences(lambda z, k=k: loss.gradient(z, y)[:, k], F)[:, k]
        np.testing.assert_allclose(loss.hessian(F, y)[:, k], second, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_intercept_is_the_best_constant(loss):
    rng = np.random.default_rng(1)
    y, w = targets(loss, rng), rng.uniform(0.5, 2, n)
    constant = np.tile(loss.intercept(y, w), (n, 1))
    np.testing.assert_allclose((w[:, None] * loss.gradient(constant, y)).sum(0), 0, atol=1e-6)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_derivatives_of_every_stage(loss, groups):
    """Property 3: trees' G and H a row, θ's over a task's rows, against the total loss."""
    rng = np.random.default_rng(2)
    y, r = targets(loss, rng), np.sort(rng.integers(0, T, n))
    a, d = rng.normal(size=(2, n, loss.outputs))
    f, theta = rng.normal(size=(groups, n, loss.outputs)), rng.normal(size=(T, groups - 1))

    def score(f, theta):
        return a + d + np.einsum("ng,gnk->nk", group_shares(theta)[r], f)

    F, shares = score(f, theta), group_shares(theta)
    g, h = loss.gradient(F, y), loss.hessian(F, y)
    for q in range(groups):

        def replaced(z, q=q):
            return loss.value(score(np.stack([z if p == q else f[p] for p in range(groups)]),
                                    theta), y)  # fmt: skip

        G, H = stage_derivatives(g, h, shares[r, q])
        np.testing.assert_allclose(G, differences(replaced, f[q]), rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(H, np.maximum(shares[r, q, None] ** 2 * h, 1e-6))
    first, second = theta_derivatives(g, h, f, shares, r)
    for t in range(T):
        for k in range(groups - 1):
            moved = [theta.copy(), theta.copy()]
            moved[0][t, k] += 1e-5
            moved[1][t, k] -= 1e-5
            up, down = (loss.value(score(f, m), y).sum() for m in moved)
            assert first[t, k] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-7)
    assert (second >= 0).all()


def test_gauss_newton_is_exact_where_the_rest_vanishes():
    """For squared loss at zero residuals, the second derivative by θ is the Gauss-Newton one."""
    rng = np.random.default_rng(3)
    r, f = np.sort(rng.integers(0, T, n)), rng.normal(size=(2, n, 1))
    theta, loss = rng.normal(size=(T, 1)), Squared()
    y = np.einsum("ng,gnk->nk", group_shares(theta)[r], f)[:, 0]

    def total(values):
        F = np.einsum("ng,gnk->nk", group_shares(values)[r], f)
        return loss.value(F, y).sum()

    _, second = theta_derivatives(np.zeros((n, 1)), np.ones((n, 1)), f, group_shares(theta), r)
    step = np.zeros((T, 1))
    step[1] = 1e-4
    numeric = (total(theta + step) - 2 * total(theta) + total(theta - step)) / 1e-8
    assert second[1, 0] == pytest.approx(numeric, rel=1e-4)


def test_two_groups_are_the_published_sigmoid():
    theta = np.array([[-2.0], [0.5]])
    np.testing.assert_allclose(group_shares(theta)[:, 1:], sigmoid(theta))
    np.testing.assert_allclose(group_shares(np.zeros((1, 3))), 0.25)


def test_floor_and_full_share():
    g, h = np.ones((2, 1)), np.zeros((2, 1))
    assert stage_derivatives(g, h)[1].tolist() == [[1e-6], [1e-6]]
    np.testing.assert_array_equal(stage_derivatives(g, h)[0], g)


def test_theta_step_is_damped_and_bounded():
    theta, one = np.zeros((1, 1)), np.ones((1, 1))
    assert theta_step(theta, 100 * one, one, penalty=1.0, rate=0.5)[0, 0] == -0.5
    assert theta_step(theta, 1 * one, 3 * one, penalty=1.0, rate=0.5)[0, 0] == -0.125
    assert theta_step(6 * one, -1e9 * one, one, penalty=1.0, rate=1.0)[0, 0] == 6.0
    pulled = theta_step(one, 0 * one, 0 * one, penalty=0.3, rate=1.0)
    assert pulled[0, 0] == pytest.approx(0)


def test_large_scores_stay_finite():
    F = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    assert np.isfinite(Softmax(3).value(F, np.array([1]))).all()
    assert np.isfinite(Logistic().value(F[:, :1], np.array([0]))).all()
    np.testing.assert_allclose(softmax(F), [[1, 0, 0]])


def test_initial_theta_depends_on_the_seed_alone():
    np.testing.assert_array_equal(initial_theta(5, 2, 3), initial_theta(5, 2, 3))
    assert not np.array_equal(initial_theta(5, 2, 3), initial_theta(5, 2, 4))
    assert initial_theta(5, 4, 0).shape == (5, 3)


def test_outputs_are_checked():
    with pytest.raises(ArgumentError, match="outputs must be at least 1"):
        Softmax(0)
