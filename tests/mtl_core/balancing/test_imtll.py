import pytest
import torch
from torchjd import scalarization

from mtl_core.balancing import IMTLL, UW
from mtl_core.errors import ArgumentError

LOSSES = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)


def started(kind=IMTLL, **kwargs):
    balancer = kind(**kwargs)
    balancer.start("abc")
    return balancer


def test_fixed_losses_become_one():
    balancer = started(lr=0.05)
    for _ in range(2000):
        balancer.advance(LOSSES, balancer.step(balancer.entries))
    torch.testing.assert_close(balancer.scalars.values, -LOSSES.log(), atol=1e-3, rtol=0)
    scaled = balancer.weigh(LOSSES, balancer.step(balancer.entries)) * LOSSES
    torch.testing.assert_close(scaled, torch.ones(3, dtype=torch.float64), atol=2e-3, rtol=0)


def test_steps_agree_with_torchjd_under_adam():
    balancer, peer = started(lr=0.1), scalarization.IMTLL(3).double()
    optimizer = torch.optim.Adam(peer.parameters(), lr=0.1)
    for i in range(20):
        losses = (LOSSES * (1 + i)).requires_grad_()
        optimizer.zero_grad()
        peer(losses).backward()
        weights = balancer.weigh(losses.detach(), balancer.step(balancer.entries))
        torch.testing.assert_close(weights, losses.grad)
        balancer.advance(losses.detach(), balancer.step(balancer.entries))
        optimizer.step()


def test_it_is_uw_at_the_negated_scalars():
    one, other = started(init=0.3), started(UW, init=-0.3)
    for _ in range(10):
        for balancer in (one, other):
            balancer.advance(LOSSES, balancer.step(balancer.entries))
    # Adam's tiny constant weighs twice as much beside UW's half gradients.
    torch.testing.assert_close(one.scalars.values, -other.scalars.values, atol=1e-7, rtol=0)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="lr must be positive"):
        IMTLL(lr=-1.0)
    with pytest.raises(ArgumentError, match="init must be finite"):
        IMTLL(init=float("nan"))
