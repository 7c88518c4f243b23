from dataclasses import replace

import torch

from mtl_core.balancing import IGB

BASE = torch.tensor([1.0, 4.0, 0.1], dtype=torch.float64)


def at(balancer, epoch, entries=None):
    return replace(balancer.step(entries or balancer.entries), epoch=epoch)


def started(entries="abc"):
    balancer = IGB()
    balancer.start(entries)
    return balancer


def test_sum_of_logs_in_the_base_epoch():
    balancer = started()
    for _ in range(2):
        torch.testing.assert_close(balancer.weigh(BASE, at(balancer, 0)), 1 / BASE)
        balancer.advance(BASE, at(balancer, 0))


def test_softmax_of_the_gaps_afterwards():
    balancer = started()
    balancer.advance(BASE * 0.5, at(balancer, 0))
    balancer.advance(BASE * 1.5, at(balancer, 0))
    gaps = torch.tensor([0.5, 0.2, 1.0], dtype=torch.float64)
    losses = BASE * gaps
    expected = 3 * torch.softmax(gaps, 0) / losses
    torch.testing.assert_close(balancer.weigh(losses, at(balancer, 1)), expected)
    balancer.advance(losses, at(balancer, 1))
    torch.testing.assert_close(balancer.weigh(losses, at(balancer, 7)), expected)


def test_factors_of_the_losses_do_not_matter():
    factors = torch.tensor([10.0, 1e-3, 7.0], dtype=torch.float64)
    found = []
    for factor in (torch.ones_like(factors), factors):
        balancer = started()
        balancer.advance(BASE * factor, at(balancer, 0))
        found.append(balancer.weigh(BASE.flip(0) / BASE * 0.3 * factor, at(balancer, 1)) * factor)
    torch.testing.assert_close(found[0], found[1])


def test_a_task_that_comes_late_has_a_base_epoch_of_its_own():
    balancer = started()
    balancer.advance(BASE[:2], at(balancer, 0, ("a", "b")))
    balancer.advance(BASE, at(balancer, 1))
    torch.testing.assert_close(balancer.weigh(BASE, at(balancer, 1)), 1 / BASE)
    halved = balancer.weigh(BASE * 0.5, at(balancer, 2))
    torch.testing.assert_close(halved, 2 / BASE)
