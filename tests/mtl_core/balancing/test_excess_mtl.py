import pytest
import torch
from gramian_laws import random_rows
from jacobian_laws import JacobianLaws, feed
from torchjd.aggregation import ExcessMTL as Peer

from mtl_core.balancing import ExcessMTL
from mtl_core.errors import ArgumentError, UnknownNameError


class TestExcessMTL(JacobianLaws):
    make = lambda: ExcessMTL(eta=0.5)  # noqa: E731


def weights_of(balancer):
    return balancer.state_dict()["method"]["log_weights"].softmax(0)


def test_agrees_with_torchjd_after_a_warm_up():
    ours, peer = ExcessMTL(eta=0.3, warmup=2, scale="paper"), Peer(0.3, n_warmup_steps=2)
    for seed in range(8):
        rows = random_rows(4, seed)
        torch.testing.assert_close(ours.direction(rows), peer(rows), rtol=1e-4, atol=1e-5)


def test_follows_the_published_recursion():
    balancer = ExcessMTL(eta=0.2, scale="paper")
    squares, log_weights, first = torch.zeros(3, 12).double(), torch.zeros(3).double(), None
    for seed in range(6):
        rows = random_rows(3, seed)
        squares = squares + rows**2
        excess = (rows**2 / squares.sqrt()).sum(1)
        first = excess if first is None else first
        log_weights = log_weights + 0.2 * excess / first
        torch.testing.assert_close(balancer.direction(rows), log_weights.softmax(0) @ rows)


def test_scale_of_the_losses_does_not_move_the_weights():
    first, second = ExcessMTL(), ExcessMTL()
    for seed in range(5):
        rows = random_rows(3, seed)
        first.direction(rows)
        second.direction(rows * torch.tensor([[1.0], [1e6], [1e-6]]).double())
    torch.testing.assert_close(weights_of(first), weights_of(second))


def test_a_task_that_stopped_learning_loses_weight():
    balancer = ExcessMTL(eta=0.1)
    rows = random_rows(2, 0)
    for k in range(30):
        balancer.direction(rows * torch.tensor([[0.9**k], [1.0]]).double())
    assert float(weights_of(balancer)[0]) < 0.4


def test_a_task_that_comes_late_starts_at_its_weight():
    balancer = ExcessMTL(eta=0.1)
    balancer.start(["a", "b", "c"])
    for seed in range(5):
        feed(balancer, random_rows(2, seed), [0, 1])
    assert float(weights_of(balancer)[2]) == pytest.approx(1 / 3)
    assert bool(torch.isfinite(feed(balancer, random_rows(3, 9), [0, 1, 2])).all())


@pytest.mark.parametrize("weighted", [True, False])
def test_decoders(weighted):
    balancer = ExcessMTL(weight_decoders=weighted)
    balancer.start(["a", "b"])
    step = balancer.step(["a", "b"])
    found = balancer.update(torch.eye(2), torch.ones(2), step)
    assert (found.decoders is not None) == weighted
    assert found.weights.tolist() == [1.0, 1.0]


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="eta must be positive"):
        ExcessMTL(eta=0)
    with pytest.raises(ArgumentError, match="warmup"):
        ExcessMTL(warmup=-1)
    with pytest.raises(UnknownNameError, match="scale"):
        ExcessMTL(scale="mean")
