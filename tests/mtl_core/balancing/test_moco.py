import pytest
import torch
from gramian_laws import near, random_rows
from jacobian_laws import JacobianLaws, feed

from mtl_core.balancing import MoCo
from mtl_core.balancing.simplex import project_to_simplex
from mtl_core.balancing.solvers import min_norm_point
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError


class TestMoCo(JacobianLaws):
    make = lambda: MoCo(gamma=0)  # noqa: E731  # without steps of the weights, which have a scale
    gain = 0.5


def test_follows_the_published_recursion():
    options = {"beta": 0.5, "gamma": 0.1, "sigma": 0.5, "sigma_lambda": 0.25, "rho": 0.1}
    balancer = MoCo(**options, scale="paper")
    tracked, weights = torch.zeros(3, 12).double(), torch.full((3,), 1 / 3).double()
    for k in range(1, 8):
        rows = random_rows(3, k)
        tracked = tracked - 0.5 / k**0.5 * (tracked - rows)
        pull = (tracked @ tracked.T + 0.1 * torch.eye(3).double()) @ weights
        weights = project_to_simplex(weights - 0.1 / k**0.25 * pull)
        torch.testing.assert_close(balancer.direction(rows), weights @ tracked)


def test_constant_gradients_end_at_the_minimum_norm_point():
    rows = random_rows(3, 1) / 4
    balancer = MoCo(sigma=0.0, sigma_lambda=0.0, scale="paper")
    for _ in range(3000):
        found = balancer.direction(rows)
    near(found, min_norm_point(rows @ rows.T) @ rows, atol=1e-5)


def test_tracking_averages_noise_away():
    torch.manual_seed(0)
    rows = random_rows(2, 0)
    balancer = MoCo(sigma=1.0, beta=1.0, gamma=0.0, scale="paper")
    for _ in range(4000):
        found = balancer.direction(rows + torch.randn_like(rows))
    near(found, rows.mean(0), atol=0.06)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_weights_of_any_gradients_stay_on_the_simplex(scale):
    balancer = MoCo()
    for seed in range(5):
        assert bool(torch.isfinite(balancer.direction(random_rows(4, seed) * scale)).all())
        assert float(balancer.state_dict()["method"]["lambda"].sum()) == pytest.approx(1)


def test_present_tasks_share_the_weight_they_had():
    balancer = MoCo(scale="paper")
    balancer.start(["a", "b", "c"])
    feed(balancer, random_rows(3, 0), [0, 1, 2])
    former = balancer.state_dict()["method"]["lambda"]
    feed(balancer, random_rows(2, 1), [0, 2])
    weights = balancer.state_dict()["method"]["lambda"]
    assert weights[1] == former[1]
    assert float(weights.sum()) == pytest.approx(1)


def test_another_number_of_parameters_is_refused():
    balancer = MoCo()
    balancer.direction(random_rows(3, 0))
    with pytest.raises(BalancerError, match="kept for 12 shared numbers does not fit the 5"):
        balancer.direction(random_rows(3, 0, width=5))


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"beta must lie in \(0, 1\], found 0"):
        MoCo(beta=0)
    with pytest.raises(ArgumentError, match="rho must not be negative"):
        MoCo(rho=-1)
    with pytest.raises(UnknownNameError, match="scale"):
        MoCo(scale="mean")
