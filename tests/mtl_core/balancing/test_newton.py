import cvxpy
import numpy as np
import pytest
from gramian_laws import A, random_rows

from mtl_core.balancing.newton import power_equilibrium


def gramian_of(tasks, seed, width=30):
    rows = random_rows(tasks, seed, width).numpy()
    return rows @ rows.T


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("tasks", [2, 5, 12])
def test_minimises_what_a_conic_solver_minimises(tasks, exponent):
    factor = random_rows(tasks, 3, 30).numpy()
    coefficients = np.linspace(0.5, 2.0, tasks)
    w = cvxpy.Variable(tasks)
    if exponent == 1:
        utility = coefficients @ cvxpy.log(w)
    else:
        utility = coefficients @ cvxpy.power(w, 1 - exponent) / (1 - exponent)
    problem = cvxpy.Problem(cvxpy.Minimize(0.5 * cvxpy.sum_squares(factor.T @ w) - utility))
    problem.solve(solver=cvxpy.CLARABEL)
    found, _ = power_equilibrium(
        factor @ factor.T, exponent=exponent, coefficients=coefficients, ridge=0.0
    )
    np.testing.assert_allclose(found, w.value, rtol=1e-2)

    def value(at):
        utility = np.log(at) if exponent == 1 else at ** (1 - exponent) / (1 - exponent)
        return 0.5 * np.sum((factor.T @ at) ** 2) - coefficients @ utility

    assert value(found) <= value(w.value)
    assert value(found) == pytest.approx(value(w.value), rel=1e-6)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("scale", [1e-16, 1.0, 1e16])
@pytest.mark.parametrize("tasks", [1, 3, 20])
def test_residual_at_any_scale(tasks, scale, exponent):
    for seed in range(3):
        inner = gramian_of(tasks, seed) * scale
        found, _ = power_equilibrium(inner, exponent=exponent, ridge=0.0)
        np.testing.assert_allclose(inner @ found * found**exponent, 1, rtol=1e-9)


def test_orthogonal_rows_have_a_closed_form():
    found, units = power_equilibrium(np.diag([1.0, 4.0, 100.0]), exponent=0.5, ridge=0.0)
    np.testing.assert_allclose(found, np.array([1.0, 4.0, 100.0]) ** (-2 / 3))
    np.testing.assert_allclose(units, 1)


@pytest.mark.parametrize("start", [1e-3, 1.0, 1e4])
def test_answer_does_not_depend_on_the_start(start):
    inner = (A @ A.T).numpy()
    found, _ = power_equilibrium(inner, start=np.full(3, start))
    np.testing.assert_allclose(found, power_equilibrium(inner)[0], rtol=1e-12)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 3.0])
def test_rows_that_cancel_get_bounded_weights(exponent):
    inner = np.array([[1.0, -1.0], [-1.0, 1.0]])
    found, _ = power_equilibrium(inner, exponent=exponent)
    np.testing.assert_allclose(found, 1e8 ** (1 / (1 + exponent)), rtol=1e-6)
