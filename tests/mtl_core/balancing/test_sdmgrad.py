import pytest
import torch
from torchjd.aggregation import SDMGradWeighting
from toys import fit

from mtl_core.balancing import SDMGrad
from mtl_core.balancing.sdmgrad import sdmgrad_descent
from mtl_core.balancing.solvers import min_norm_point
from mtl_core.errors import ArgumentError, UnknownNameError

A = torch.tensor([[1, 0, 0, 0.5], [-0.6, 1, 0, 0.2], [0, -0.3, 0.8, -1]], dtype=torch.float64)


def test_agrees_with_torchjd():
    torch.manual_seed(0)
    method, reference = SDMGrad(scale="paper"), SDMGradWeighting()
    for _ in range(5):
        one, two, three = 0.3 * torch.randn(3, 4, 9, dtype=torch.float64) + A.mean()
        wanted = reference(one @ two.t()) @ three
        found = method.direction_of_parts([one, two, three])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_without_noise_and_target_it_is_the_min_norm_direction():
    method = SDMGrad(lam=0.0, lr=0.3, momentum=0.0, iterations=2000, scale="paper")
    torch.testing.assert_close(
        method.direction(A), min_norm_point(A @ A.t()) @ A, rtol=1e-6, atol=1e-8
    )


def test_a_strong_target_takes_over():
    preference = {"0": 1.0, "1": 2.0, "2": 3.0}
    method = SDMGrad(lam=1e6, preference=preference, scale="paper")
    wanted = torch.tensor([1.0, 2, 3], dtype=torch.float64) / 6 @ A
    torch.testing.assert_close(method.direction(A), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
def test_degree_one(scale):
    torch.testing.assert_close(
        SDMGrad().direction(A * scale) / scale, SDMGrad().direction(A), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("parts", [2, 3])
def test_at_consensus_it_is_the_plain_sum(parts):
    row = torch.randn(1, 5).double()
    found = SDMGrad(parts=parts).direction(row.expand(4, 5))
    torch.testing.assert_close(found, 4 * row[0])
    torch.testing.assert_close(SDMGrad(parts=parts).direction(row), row[0])


def test_order_of_tasks_does_not_matter():
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(SDMGrad().direction(A[order]), SDMGrad().direction(A))


def test_estimates_that_disagree_leave_the_weights():
    start = torch.tensor([0.2, 0.8], dtype=torch.float64)
    cross = torch.tensor([[-1.0, 3], [2, 0]], dtype=torch.float64)
    options = {"lr": 10.0, "momentum": 0.5, "iterations": 5}
    assert torch.equal(sdmgrad_descent(cross, start, 0.1 * start, **options), start)


@pytest.mark.parametrize("rows", [A * 0, A[[0, 0]], torch.stack([A[0], -A[0]])])
def test_odd_rows_are_finite(rows):
    assert SDMGrad().direction(rows).isfinite().all()


def test_weights_of_absent_tasks_wait_and_state_round_trip():
    method, other = SDMGrad(), SDMGrad()
    method.direction(A)
    before = method._weights.clone()
    cross = torch.tensor([[2.0, 0], [0, 1.0]], dtype=torch.float64)
    method.weigh(cross, torch.ones(2), method.step(("0", "2")))
    assert method._weights[1] == before[1]
    assert float(method._weights.sum()) == pytest.approx(1)
    other.start(method.entries)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.direction(A), method.direction(A))


@pytest.mark.parametrize("parts", [2, 3])
def test_trains(parts):
    assert fit(SDMGrad(parts=parts), max_steps=4).isfinite().all()


def test_bad_arguments():
    for name, value in {"lam": -1, "lr": 0, "momentum": 1, "iterations": 0}.items():
        with pytest.raises(ArgumentError, match=name):
            SDMGrad(**{name: value})
    with pytest.raises(UnknownNameError, match="preference"):
        SDMGrad(preference={"x": 1.0}).direction(A)
