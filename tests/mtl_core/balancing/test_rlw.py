import pytest
import torch

from mtl_core.balancing import COSMOS, RLW
from mtl_core.balancing.draws import check_concentration, dirichlet
from mtl_core.errors import ArgumentError, UnknownNameError

LOSSES = torch.ones(3, dtype=torch.float64)


def drawn(balancer, count, entries="abc"):
    balancer.start("abc")
    found = []
    for _ in range(count):
        found.append(balancer.weigh(LOSSES[: len(entries)], balancer.step(tuple(entries))))
        balancer.index += 1
    return torch.stack(found)


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_draws_are_a_function_of_seed_and_update(distribution):
    one = drawn(RLW(distribution=distribution, seed=1), 5)
    assert torch.equal(one, drawn(RLW(distribution=distribution, seed=1), 5))
    assert not torch.equal(one, drawn(RLW(distribution=distribution, seed=2), 5))
    assert len({tuple(row.tolist()) for row in one}) == 5


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_weights_are_positive_of_fixed_sum_and_equal_on_average(distribution):
    weights = drawn(RLW(distribution=distribution), 4000)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.full((4000,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(weights.mean(0), LOSSES, atol=0.04, rtol=0)
    paper = drawn(RLW(distribution=distribution, scale="paper"), 3)
    torch.testing.assert_close(paper * 3, weights[:3])


def test_laws_of_the_draws():
    """log-ratios of the softmax are normal of variance 2; a uniform share has variance 1/18."""
    logs = drawn(RLW(), 4000).log()
    assert float((logs[:, 0] - logs[:, 1]).var()) == pytest.approx(2, rel=0.1)
    shares = drawn(RLW(distribution="dirichlet", scale="paper"), 4000)
    assert float(shares[:, 0].var()) == pytest.approx(1 / 18, rel=0.1)


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_ratios_do_not_depend_on_who_is_present(distribution):
    whole = drawn(RLW(distribution=distribution), 4)
    part = drawn(RLW(distribution=distribution), 4, "ac")
    torch.testing.assert_close(part[:, 0] / part[:, 1], whole[:, 0] / whole[:, 2])


def test_corners_are_drawn_without_underflow():
    balancer = COSMOS(concentration=1e-3)
    balancer.start("abc")
    for _ in range(50):
        share = dirichlet(balancer.step(balancer.entries), 3, 1e-3)
        assert float(share.sum()) == pytest.approx(1)
        assert float(share.max()) > 0.5 or float(share.min()) > 0
        balancer.index += 1


def test_bad_arguments():
    with pytest.raises(UnknownNameError, match="distribution"):
        RLW(distribution="uniform")
    with pytest.raises(UnknownNameError, match="scale"):
        RLW(scale="mean")
    with pytest.raises(ArgumentError, match="concentration must be positive"):
        check_concentration(0.0, None)
    with pytest.raises(ArgumentError, match="preference must be empty"):
        check_concentration(1.0, {"a": 1.0})
