import pytest
import torch
from scalarise import draw_losses

from mtl_core.balancing import UWSO
from mtl_core.errors import ArgumentError, UnknownNameError


def weigh(balancer, losses):
    balancer.start("abcd"[: len(losses)])
    return balancer.weigh(losses, balancer.step(balancer.entries))


def test_two_tasks():
    """1/ℓ = (2, 1) over τ = 1: the softmax of a difference of one."""
    losses = torch.tensor([0.5, 1.0], dtype=torch.float64)
    first = 1 / (1 + torch.tensor(-1.0, dtype=torch.float64).exp())
    found = weigh(UWSO(tau=1.0, scale="paper"), losses)
    torch.testing.assert_close(found, torch.stack([first, 1 - first]))
    torch.testing.assert_close(weigh(UWSO(tau=1.0), losses), found * 2)


def test_hot_is_equal_and_cold_is_the_smallest_loss():
    losses = draw_losses(0)
    torch.testing.assert_close(weigh(UWSO(tau=1e12), losses), torch.ones(4, dtype=torch.float64))
    cold = weigh(UWSO(tau=1e-9, scale="paper"), losses)
    assert cold.tolist() == [float(x == losses.min()) for x in losses]


def test_temperature_has_the_unit_of_an_inverse_loss():
    losses = draw_losses(2)
    torch.testing.assert_close(weigh(UWSO(tau=2.0), losses), weigh(UWSO(tau=0.02), losses * 100))


def test_tiny_losses_are_clamped():
    losses = torch.tensor([1e-320, 1e-300], dtype=torch.float64)
    assert weigh(UWSO(), losses).tolist() == [1.0, 1.0]


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="tau must be positive"):
        UWSO(tau=0.0)
    with pytest.raises(ArgumentError, match="floor must be positive"):
        UWSO(floor=-1.0)
    with pytest.raises(UnknownNameError, match="scale"):
        UWSO(scale="mean")
