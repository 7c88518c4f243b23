import pytest
import torch

from mtl_core.balancing import MGDAUB


def merged(rows: torch.Tensor, **kwargs):
    balancer = MGDAUB(**kwargs)
    balancer.entries = tuple("abcdef"[: len(rows)])
    return balancer.merge(rows, torch.ones(len(rows)), balancer.step(balancer.entries))


@pytest.mark.parametrize("seed", range(5))
def test_update_is_common_descent_direction(seed):
    rows = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed))
    found = merged(rows, scale="paper")
    assert torch.all(rows @ found.gradient >= found.gradient @ found.gradient - 1e-5)
    torch.testing.assert_close(found.weights.sum(), found.weights.new_tensor(1.0))


@pytest.mark.parametrize(("scale", "gain"), [("sum", 3.0), ("paper", 1.0)])
def test_consensus_gain(scale, gain):
    row = torch.randn(7)
    found = merged(row.expand(3, 7), scale=scale)
    torch.testing.assert_close(found.gradient, gain * row)


def test_l2_ignores_the_size_of_gradients():
    torch.manual_seed(0)
    rows = torch.randn(3, 9)
    factors = torch.tensor([[1.0], [100.0], [0.01]])
    one = merged(rows, normalise="l2").gradient
    two = merged(rows * factors, normalise="l2").gradient
    torch.testing.assert_close(one / one.norm(), two / two.norm(), atol=1e-4, rtol=1e-4)


def test_task_without_gradient_is_left_out():
    rows = torch.tensor([[1.0, 0], [0, 0], [0, 1]])
    found = merged(rows, scale="paper")
    torch.testing.assert_close(found.gradient, torch.tensor([0.5, 0.5]))
    assert merged(torch.zeros(2, 3)).gradient.tolist() == [0.0] * 3
    assert merged(torch.tensor([[3.0, 4]])).gradient.tolist() == [3.0, 4.0]
