import numpy as np
import pytest
import torch
from gramian_laws import random_rows
from qpsolvers import solve_qp

from mtl_core.balancing import UPGrad
from mtl_core.balancing.dual_cone import dual_cone_weights
from mtl_core.errors import ArgumentError


@pytest.mark.parametrize("tasks", [2, 5, 12])
@pytest.mark.parametrize("seed", range(6))
def test_solves_the_quadratic_programme(tasks, seed):
    rows = random_rows(tasks, seed, width=20)
    gramian = rows @ rows.T
    start = torch.rand(tasks, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = dual_cone_weights(gramian, start)
    lengths = rows.norm(dim=1).numpy()
    scaled = solve_qp(
        gramian.numpy() / np.outer(lengths, lengths),
        np.zeros(tasks),
        -np.eye(tasks),
        -start.numpy() * lengths,
        solver="quadprog",
    )
    torch.testing.assert_close(found, torch.from_numpy(scaled / lengths), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("seed", range(20))
def test_is_the_projection(seed):
    rows = random_rows(5, seed)
    start = torch.ones(5, dtype=torch.float64)
    found = dual_cone_weights(rows @ rows.T, start) @ rows
    products = rows @ found
    assert torch.all(products > -1e-8 * rows.norm(dim=1) * found.norm())
    # The residual is orthogonal to the projection and in the polar cone.
    residual = start @ rows - found
    assert abs(float(residual @ found)) < 1e-8 * float(found.norm() * (start @ rows).norm())


@pytest.mark.parametrize("seed", range(10))
def test_rows_of_very_different_length_do_no_harm(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(40, 60, dtype=torch.float64, generator=generator)
    rows = rows * torch.linspace(-4, 4, 40, dtype=torch.float64).exp()[:, None]
    found = dual_cone_weights(rows @ rows.T, torch.ones(40).double(), regularisation=1e-8) @ rows
    assert float((rows @ found / rows.norm(dim=1)).min() / found.norm()) > -1e-3


def test_dependent_rows_are_bounded():
    rows = torch.tensor([[1.0, 0], [-1.0, 1e-12], [-2.0, 0]], dtype=torch.float64)
    found = dual_cone_weights(rows @ rows.T, torch.ones(3).double(), regularisation=1e-8)
    assert float(found.abs().max()) < 1e5


def test_bad_regularisation():
    with pytest.raises(ArgumentError, match=r"regularisation must lie in \[0, 1\), found -1"):
        UPGrad(regularisation=-1)
