from itertools import product

import pytest
import torch
from scalarise import draw_losses

from mtl_core.balancing import GO4Align
from mtl_core.balancing.go4align import cluster_means
from mtl_core.errors import ArgumentError


def started(tasks=4, **kwargs):
    balancer = GO4Align(**kwargs)
    balancer.start("abcdefgh"[:tasks])
    return balancer


def squared_error(values, labels):
    groups = [[v for v, g in zip(values, labels, strict=True) if g == k] for k in set(labels)]
    return sum(sum((v - sum(g) / len(g)) ** 2 for v in g) for g in groups)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_the_best_of_all(seed, groups):
    values = draw_losses(seed, 6)
    best = min(squared_error(values.tolist(), c) for c in product(range(groups), repeat=6))
    found = cluster_means(values, groups)
    assert float((found - values).square().sum()) == pytest.approx(best)
    assert len(set(found.tolist())) == groups
    assert float(found.sum()) == pytest.approx(float(values.sum()))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_clusters_know_neither_order_nor_scale(scale):
    values = draw_losses(5, 8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        cluster_means(values[order] * scale, 3), cluster_means(values, 3)[order] * scale
    )


def test_edges_of_clustering():
    assert cluster_means(torch.tensor([3.0]), 5).tolist() == [3.0]
    assert cluster_means(torch.tensor([2.0, 2.0, 2.0]), 2).tolist() == [2.0] * 3
    values = draw_losses(0)
    torch.testing.assert_close(cluster_means(values, 9), values)


def test_risk_over_steps_is_that_of_the_released_code():
    balancer = started(groups=4, eta=0.1)
    risk = torch.full((4,), 0.25, dtype=torch.float64)
    for seed in range(5):
        losses = draw_losses(seed)
        risk = risk * torch.exp(-0.1 * losses)
        risk = risk / risk.sum()
        expected = losses.sum() / losses * risk
        step = balancer.step(balancer.entries)
        torch.testing.assert_close(balancer.weigh(losses, step), expected)
        balancer.advance(losses, step)


def test_one_group_is_one_common_weight():
    balancer = started(groups=1)
    weights = balancer.weigh(draw_losses(0), balancer.step(balancer.entries))
    assert len(set(weights.tolist())) == 1
    equal = balancer.weigh(torch.ones(4, dtype=torch.float64), balancer.step(balancer.entries))
    torch.testing.assert_close(equal, torch.ones(4, dtype=torch.float64))


def test_risk_of_absent_tasks_and_the_share_of_the_others_stay():
    balancer = started(3, eta=0.5)
    balancer.advance(draw_losses(0, 3), balancer.step(balancer.entries))
    before = torch.softmax(balancer.log_risk, 0)
    balancer.advance(draw_losses(1, 2), balancer.step(("a", "c")))
    after = torch.softmax(balancer.log_risk, 0)
    torch.testing.assert_close(after[1], before[1])
    assert not torch.allclose(after, before)


def test_long_runs_do_not_underflow():
    balancer = started(2, eta=1.0, groups=2)
    losses = torch.tensor([1.0, 2000.0], dtype=torch.float64)
    for _ in range(10):
        balancer.advance(losses, balancer.step(balancer.entries))
    assert balancer.log_risk.isfinite().all()


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="groups must be at least 1"):
        GO4Align(groups=0)
    with pytest.raises(ArgumentError, match="eta must be finite and not negative"):
        GO4Align(eta=-1.0)
