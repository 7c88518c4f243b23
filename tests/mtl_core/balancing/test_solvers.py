import cvxpy
import numpy as np
import pytest
import torch

from mtl_core.balancing.solvers import (
    is_stationary,
    min_norm_point,
    minimise_nonnegative,
    nonnegative_quadratic,
)

A = torch.tensor([[1, 0, 0, 0.5], [-0.6, 1, 0, 0.2], [0, -0.3, 0.8, -1]], dtype=torch.float64)
B = torch.tensor([[-4, 1, 1], [6, 1, 1]], dtype=torch.float64)


def random_rows(tasks: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, 12, dtype=torch.float64, generator=generator)
    return rows * torch.logspace(-2, 2, tasks, dtype=torch.float64)[:, None]


def test_published_example():
    weights = min_norm_point(A @ A.T)
    expected = torch.tensor([0.369576, 0.340399, 0.290026], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        min_norm_point(B @ B.T) @ B, torch.tensor([0.0, 1, 1], dtype=torch.float64)
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tasks", [2, 3, 8, 20])
def test_optimality_conditions(tasks, seed):
    rows = random_rows(tasks, seed)
    inner = rows @ rows.T
    weights = min_norm_point(inner)
    products = inner @ weights
    value = weights @ products
    slack = 1e-9 * inner.diagonal().sqrt() * inner.diagonal().max().sqrt()
    assert torch.all(weights >= 0)
    torch.testing.assert_close(weights.sum(), weights.new_tensor(1.0))
    assert torch.all(products >= value - slack)
    active = weights > 1e-9
    torch.testing.assert_close(
        products[active], value.expand_as(products[active]), atol=float(slack.max()), rtol=1e-6
    )


@pytest.mark.parametrize("seed", range(10))
def test_two_tasks_have_a_closed_form(seed):
    rows = random_rows(2, seed)
    (a, c), (_, b) = rows @ rows.T
    first = ((b - c) / (a + b - 2 * c)).clamp(0, 1)
    torch.testing.assert_close(min_norm_point(rows @ rows.T), torch.stack([first, 1 - first]))


@pytest.mark.parametrize("scale", [1e-16, 1e-8, 1e8, 1e16])
def test_any_scale(scale):
    torch.testing.assert_close(min_norm_point(A @ A.T * scale), min_norm_point(A @ A.T))


def test_permuting_tasks_permutes_weights():
    order = torch.tensor([2, 0, 1])
    inner = A @ A.T
    torch.testing.assert_close(min_norm_point(inner[order][:, order]), min_norm_point(inner)[order])


def test_stationary_and_dependent_rows():
    opposite = torch.tensor([[1.0, -1], [-1, 1]], dtype=torch.float64)
    torch.testing.assert_close(min_norm_point(opposite), torch.full((2,), 0.5, dtype=torch.float64))
    same = torch.ones(3, 3, dtype=torch.float64)
    weights = min_norm_point(same)
    torch.testing.assert_close(weights @ same @ weights, weights.new_tensor(1.0))
    assert min_norm_point(torch.ones(1, 1, dtype=torch.float64)).tolist() == [1.0]


def test_quadratic_agrees_with_scipy():
    scipy = pytest.importorskip("scipy.optimize")
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(9, 5, dtype=torch.float64, generator=generator)
    target = torch.randn(9, dtype=torch.float64, generator=generator)
    found = nonnegative_quadratic(factor.T @ factor, factor.T @ target)
    expected, _ = scipy.nnls(factor.numpy(), target.numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize("width", [4, 10, 30])
@pytest.mark.parametrize("seed", range(4))
def test_quadratic_agrees_with_a_conic_solver_on_dependent_rows_too(width, seed):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(10, width)) * np.exp(generator.normal(size=(10, 1)))
    linear = rows @ generator.normal(size=width)  # in the range, so that there is a minimum
    v = cvxpy.Variable(10, nonneg=True)
    objective = 0.5 * cvxpy.sum_squares(rows.T @ v) - linear @ v
    best = cvxpy.Problem(cvxpy.Minimize(objective)).solve(solver=cvxpy.CLARABEL)
    inner = rows @ rows.T
    found = minimise_nonnegative(inner, linear)
    assert np.all(found >= 0)
    assert 0.5 * found @ inner @ found - linear @ found <= best + 1e-7 * (1 + abs(best))


def test_start_changes_nothing():
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(8, 20))
    inner, linear = rows @ rows.T, generator.normal(size=8)
    plain = minimise_nonnegative(inner, linear)
    for start in (np.zeros(8), np.ones(8), generator.normal(size=8)):
        np.testing.assert_allclose(minimise_nonnegative(inner, linear, start=start), plain)


@pytest.mark.parametrize("tasks", [4, 20])
def test_hull_that_holds_zero(tasks):
    rows = np.random.default_rng(tasks).normal(size=(tasks - 1, 2 * tasks))
    rows = np.concatenate([rows, -rows[: tasks // 2].sum(0, keepdims=True)])
    inner = torch.from_numpy(rows @ rows.T)
    weights = min_norm_point(inner)
    assert is_stationary(inner.numpy(), weights.numpy(), tolerance=1e-9)
    assert float(weights.sum()) == pytest.approx(1)


def test_rows_of_extreme_lengths():
    rows = random_rows(5, 0) * torch.tensor([1, 1e-8, 1e-8, 1e4, 1.0]).double()[:, None]
    inner = rows @ rows.T
    weights = min_norm_point(inner)
    small = min_norm_point(inner[1:3][:, 1:3] * 1e16)
    torch.testing.assert_close(weights[1:3], small, rtol=1e-5, atol=1e-7)
