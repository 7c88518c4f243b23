from dataclasses import replace

import pytest
import torch
from torchjd import scalarization
from toys import fit

from mtl_core.balancing import DWA
from mtl_core.balancing.dwa import dwa_weights
from mtl_core.errors import ArgumentError, BalancerError


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_reference_values():
    ones = numbers(1, 1)
    torch.testing.assert_close(dwa_weights(ones, ones, 2.0), ones)
    found = dwa_weights(numbers(0.5, 1), ones, 2.0)
    torch.testing.assert_close(found, numbers(0.875647, 1.124353), atol=1e-6, rtol=0)


def test_unknown_and_solved_tasks_are_finite():
    nan = float("nan")
    found = dwa_weights(numbers(nan, 0, 1, 1), numbers(1, 0, 0, nan), 2.0)
    assert found.isfinite().all()
    assert float(found.sum()) == pytest.approx(4)
    torch.testing.assert_close(
        dwa_weights(numbers(nan, 2), numbers(nan, 2), 2.0), torch.ones(2, dtype=torch.float64)
    )


def test_epochs_agree_with_torchjd():
    balancer, peer = DWA(), scalarization.DWA()
    balancer.start("abc")
    generator = torch.Generator().manual_seed(0)
    for epoch in range(5):
        for _ in range(3):
            losses = torch.rand(3, dtype=torch.float64, generator=generator) * 0.7**epoch
            step = replace(balancer.step(balancer.entries), epoch=epoch)
            leaf = losses.clone().requires_grad_()
            (expected,) = torch.autograd.grad(peer(leaf), leaf)
            torch.testing.assert_close(balancer.weigh(losses, step), expected)
            balancer.advance(losses, step)
        peer.step()


def test_weights_in_a_fit_are_one_for_two_epochs():
    balancer = DWA()
    torch.testing.assert_close(fit(balancer), fit())
    assert set(balancer.weights.values()) == {1.0}
    fit(balancer := DWA(), max_epochs=3)
    assert sum(balancer.weights.values()) == pytest.approx(3)
    assert len(set(balancer.weights.values())) == 3


def test_bad_arguments_and_losses():
    with pytest.raises(ArgumentError, match="tau must be positive"):
        DWA(tau=0.0)
    balancer = DWA()
    balancer.start("ab")
    with pytest.raises(BalancerError, match="that of b is -1"):
        balancer.advance(numbers(1, -1), balancer.step(balancer.entries))
