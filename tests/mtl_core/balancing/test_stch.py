from dataclasses import replace

import pytest
import torch
from scalarise import draw_losses, slopes
from torchjd import scalarization

from mtl_core.balancing import STCH
from mtl_core.balancing.stch import stch_weights
from mtl_core.errors import ArgumentError, UnknownNameError

PREFERENCE = {"a": 1.0, "b": 2.0, "c": 1.0, "d": 4.0}
IDEAL = {"a": -0.5, "c": 0.01}


def started(**kwargs):
    balancer = STCH(**kwargs)
    balancer.start("abcd")
    return balancer


def at(balancer, epoch):
    return replace(balancer.step(balancer.entries), epoch=epoch)


@pytest.mark.parametrize("mu", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchjd(seed, mu):
    losses = draw_losses(seed)
    balancer = started(mu=mu, preference=PREFERENCE, ideal=IDEAL, scale="paper")
    peer = scalarization.STCH(
        mu,
        torch.tensor([1.0, 2.0, 1.0, 4.0], dtype=torch.float64) / 8,
        torch.tensor([-0.5, 0, 0.01, 0], dtype=torch.float64),
    )
    torch.testing.assert_close(balancer.weigh(losses, at(balancer, 0)), slopes(peer, losses))


def test_small_mu_follows_the_worst_and_large_mu_the_preference():
    losses, zero = torch.tensor([1.0, 2.0, 400.0]), torch.zeros(3)
    third = torch.full((3,), 1 / 3)
    assert stch_weights(losses, third, zero, 1e-6).tolist() == [0, 0, third[2]]
    preference = torch.tensor([0.2, 0.3, 0.5])
    torch.testing.assert_close(stch_weights(losses, preference, zero, 1e9), preference / 3)


def nadir(losses, vector, mu):
    return 4 * mu * torch.logsumexp((losses / vector).log() / mu, 0)


@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_recipe_for_deep_networks(mu):
    balancer = started(form="nadir", mu=mu, warmup=1)
    vector, losses = draw_losses(1), draw_losses(2)
    logs = slopes(lambda x: x.log().sum(), losses)
    balancer.advance(losses * 9, at(balancer, 0))
    torch.testing.assert_close(balancer.weigh(losses, at(balancer, 0)), logs)
    for factor in (0.5, 1.5):
        balancer.advance(vector * factor, at(balancer, 1))
        torch.testing.assert_close(balancer.weigh(losses, at(balancer, 1)), logs)
    expected = slopes(lambda x: nadir(x, vector, mu), losses)
    torch.testing.assert_close(balancer.weigh(losses, at(balancer, 2)), expected)
    if mu == 1.0:
        closed = slopes(lambda x: 4 * (x / vector).sum().log(), losses)
        torch.testing.assert_close(expected, closed)
    resumed = started(form="nadir", mu=mu, warmup=1)
    resumed.load_state_dict(balancer.state_dict())
    torch.testing.assert_close(resumed.weigh(losses, at(resumed, 3)), expected)


def test_a_task_without_nadir_keeps_the_weight_of_the_warm_up():
    balancer = started(form="nadir", warmup=0)
    losses = draw_losses(0)
    balancer.advance(losses[:3], replace(balancer.step(("a", "b", "c")), epoch=0))
    found = balancer.weigh(losses, at(balancer, 1))
    torch.testing.assert_close(found, 1 / losses)


def test_bad_arguments():
    with pytest.raises(UnknownNameError, match="form"):
        STCH(form="libmtl")
    with pytest.raises(UnknownNameError, match="scale"):
        STCH(scale="mean")
    with pytest.raises(ArgumentError, match="mu must be positive"):
        STCH(mu=0.0)
    with pytest.raises(ArgumentError, match="warmup must not be negative"):
        STCH(warmup=-1)
    with pytest.raises(ArgumentError, match="ideal must be empty with form: nadir"):
        STCH(form="nadir", ideal=IDEAL)
    with pytest.raises(UnknownNameError, match="ideal"):
        started(ideal={"e": 1.0})
    with pytest.raises(UnknownNameError, match="preference"):
        started(preference={"e": 1.0})
