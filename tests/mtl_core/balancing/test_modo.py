import pytest
import torch
from torchjd.aggregation import MoDoWeighting
from toys import fit

from mtl_core.balancing import MoDo
from mtl_core.balancing.solvers import min_norm_point
from mtl_core.errors import ArgumentError

A = torch.tensor([[1, 0, 0, 0.5], [-0.6, 1, 0, 0.2], [0, -0.3, 0.8, -1]], dtype=torch.float64)


def test_agrees_with_torchjd():
    torch.manual_seed(0)
    method, reference = MoDo(gamma=0.05, rho=0.2, scale="paper"), MoDoWeighting(0.05, 0.2)
    for _ in range(10):
        one, two = torch.randn(2, 4, 9, dtype=torch.float64)
        weights = reference(one @ two.t())
        wanted = weights @ (one + two) / 2
        torch.testing.assert_close(method.direction_of_parts([one, two]), wanted)


def test_third_part_takes_the_weights():
    torch.manual_seed(0)
    parts = list(torch.randn(3, 4, 9, dtype=torch.float64))
    weights = MoDoWeighting(0.1, 0.1)(parts[0] @ parts[1].t())
    found = MoDo(parts=3, scale="paper").direction_of_parts(parts)
    torch.testing.assert_close(found, weights @ parts[2])


def test_many_steps_end_at_the_min_norm_point():
    """Without noise and regularisation it is projected descent on the length of the update."""
    method = MoDo(gamma=0.1, rho=0.0, scale="paper")
    for _ in range(500):
        found = method.direction(A)
    torch.testing.assert_close(found, min_norm_point(A @ A.t()) @ A, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("parts", [2, 3])
def test_at_consensus_it_is_the_plain_sum(parts):
    row = torch.randn(1, 5).double()
    found = MoDo(parts=parts).direction(row.expand(4, 5))
    torch.testing.assert_close(found, 4 * row[0])
    torch.testing.assert_close(MoDo(parts=parts).direction(row), row[0])


def test_order_of_tasks_does_not_matter():
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(MoDo().direction(A[order]), MoDo().direction(A))


@pytest.mark.parametrize("rows", [A * 0, A[[0, 0]], torch.stack([A[0], -A[0]]), A * 1e8, A * 1e-8])
def test_odd_rows_are_finite(rows):
    assert MoDo().direction(rows).isfinite().all()


def test_weights_of_absent_tasks_wait():
    method = MoDo(gamma=0.5)
    method.start(("a", "b", "c"))
    cross = torch.tensor([[2.0, 0], [0, 1.0]], dtype=torch.float64)
    weights = method.weigh(cross, torch.ones(2), method.step(("a", "c")))
    assert float(weights.sum()) == pytest.approx(1)
    assert float(method._lambda[1]) == pytest.approx(1 / 3)
    assert float(method._lambda.sum()) == pytest.approx(1)


def test_state_round_trip():
    method, other = MoDo(), MoDo()
    method.direction(A)
    other.start(method.entries)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.direction(A), method.direction(A))
    assert not torch.equal(method._lambda, torch.full((3,), 1 / 3).double())


@pytest.mark.parametrize("parts", [2, 3])
def test_trains(parts):
    assert fit(MoDo(parts=parts), max_steps=4).isfinite().all()


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="gamma must be positive, found 0"):
        MoDo(gamma=0)
    with pytest.raises(ArgumentError, match="rho must not be negative, found -1"):
        MoDo(rho=-1)
