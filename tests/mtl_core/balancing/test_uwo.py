import pytest
import torch
from scalarise import draw_losses

from mtl_core.balancing import SI, UWO
from mtl_core.errors import ArgumentError, UnknownNameError


def weigh(balancer, losses):
    balancer.start("abcd"[: len(losses)])
    return balancer.weigh(losses, balancer.step(balancer.entries))


def test_published_weights_are_those_of_the_sum_of_logs():
    losses = draw_losses(0)
    torch.testing.assert_close(weigh(UWO(scale="paper"), losses), weigh(SI(eps=0), losses))


def test_sum_keeps_the_direction():
    losses = draw_losses(1)
    weights = weigh(UWO(), losses)
    assert float(weights.sum()) == pytest.approx(4)
    assert float((weights * losses).std()) < 1e-12
    torch.testing.assert_close(weigh(UWO(), losses * 1e-3), weights)


def test_tiny_losses_are_clamped():
    losses = torch.tensor([1e-320, 1.0], dtype=torch.float64)
    assert weigh(UWO(scale="paper"), losses).tolist() == [1e8, 1.0]


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="floor must be positive"):
        UWO(floor=0.0)
    with pytest.raises(UnknownNameError, match="scale"):
        UWO(scale="mean")
