import pytest
import torch
from gramian_laws import PAPER, A, GramianLaws, random_rows
from torchjd.aggregation import GradVac as Peer

from mtl_core.balancing import GradVac
from mtl_core.balancing.gradvac import gradvac_weights
from mtl_core.balancing.pcgrad import draw_orders, pcgrad_weights
from mtl_core.errors import ArgumentError


def vaccinated(rows, orders, targets):
    """Algorithm 1 of the paper on the vectors themselves."""
    corrected = []
    for i, row in enumerate(rows):
        vector = row.clone()
        for j in orders[i].tolist():
            cosine = torch.cosine_similarity(vector, rows[j], dim=0)
            goal = targets[i, j]
            if j != i and cosine < goal:
                free, across = (1 - goal**2).sqrt(), (1 - cosine**2).sqrt()
                factor = vector.norm() * (goal * across - cosine * free) / (rows[j].norm() * free)
                vector = vector + factor * rows[j]
        corrected.append(vector)
    return torch.stack(corrected).sum(0)


class TestGradVac(GramianLaws):
    make = GradVac
    gain = 1.0
    per_task = True
    permutes = False
    additive = True  # for one order and one state
    harmless = (2,)


def draws(seed, tasks=5):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(tasks, tasks, dtype=torch.float64, generator=generator) * 1.4 - 0.5
    return random_rows(tasks, seed), draw_orders(tasks, generator), targets


@pytest.mark.parametrize("seed", range(10))
def test_gramian_form_equals_correcting_vectors(seed):
    rows, orders, targets = draws(seed)
    weights, _ = gradvac_weights(rows @ rows.T, orders, targets)
    torch.testing.assert_close(weights @ rows, vaccinated(rows, orders, targets))


@pytest.mark.parametrize("seed", range(5))
def test_targets_of_zero_are_pcgrad(seed):
    rows, orders, _ = draws(seed)
    weights, _ = gradvac_weights(rows @ rows.T, orders, torch.zeros(5, 5).double())
    torch.testing.assert_close(weights, pcgrad_weights(rows @ rows.T, orders))


@pytest.mark.parametrize("goal", [-0.3, 0.0, 0.4, 1 - 1e-6])
def test_corrected_pair_has_the_wanted_cosine(goal):
    rows = torch.tensor([[2.0, 0, 0], [-1, 1, 0]], dtype=torch.float64)
    targets = torch.full((2, 2), goal, dtype=torch.float64)
    orders = torch.tensor([[0, 1], [1, 0]])
    weights, cosines = gradvac_weights(rows @ rows.T, orders, targets)
    # Of the two corrected rows each is the other's mirror image up to length: undo the first.
    own = torch.tensor(
        [1.0, (goal * (1 - 0.5) ** 0.5 / (1 - goal**2) ** 0.5 + 0.5**0.5) * 2 / 2**0.5]
    )
    first = rows[0] + own[1].double() * rows[1]
    assert torch.cosine_similarity(first, rows[1], dim=0) == pytest.approx(goal, abs=1e-6)
    assert weights[1] == pytest.approx(1 + float(own[1]))
    assert cosines[0, 1] == pytest.approx(-(0.5**0.5))
    assert cosines.diagonal().isnan().all()


def test_targets_follow_the_cosines_they_met():
    balancer = GradVac(beta=0.25)
    rows = torch.tensor([[1.0, 0], [-1, 1]], dtype=torch.float64)
    balancer.solve(rows @ rows.T)
    cosine = -(0.5**0.5)
    expected = torch.tensor([[0, 0.25 * cosine], [0.25 * cosine, 0]], dtype=torch.float64)
    torch.testing.assert_close(balancer.targets, expected)
    balancer.solve(rows @ rows.T)
    torch.testing.assert_close(balancer.targets, expected * 1.75)


def test_absent_tasks_keep_their_targets():
    balancer = GradVac()
    balancer.solve(A @ A.T)
    former = balancer.targets.clone()
    inner = A @ A.T
    inner[1], inner[:, 1] = 0, 0
    balancer.solve(inner)
    assert torch.equal(balancer.targets[1], former[1])
    assert torch.equal(balancer.targets[:, 1], former[:, 1])
    assert not torch.equal(balancer.targets, former)


def test_cancelled_rows_stay_finite():
    row = random_rows(1, 0)
    rows = torch.cat([row, -2 * row, random_rows(1, 1)])
    balancer = GradVac(beta=1.0)
    for _ in range(4):
        assert bool(torch.isfinite(balancer.solve(rows @ rows.T)).all())
    assert bool(torch.isfinite(balancer.targets).all())


@pytest.mark.parametrize("seed", range(5))
def test_two_tasks_agree_with_torchjd_over_several_updates(seed):
    ours, peer = GradVac(beta=0.3, stages=PAPER), Peer(beta=0.3)  # two tasks: no order to draw
    for step in range(4):
        rows = random_rows(2, 10 * seed + step)
        torch.testing.assert_close(ours.direction(rows), peer(rows), rtol=1e-5, atol=1e-6)


def test_refuses_a_share_beyond_one():
    with pytest.raises(ArgumentError, match="beta"):
        GradVac(beta=1.5)
