import cvxpy
import numpy as np
import pytest
import torch
from gramian_laws import PAPER, A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import CAGrad as Peer

from mtl_core.balancing import MGDA, CAGrad, Stages
from mtl_core.balancing.cagrad import cagrad_weights
from mtl_core.errors import ArgumentError


class TestCAGrad(GramianLaws):
    @staticmethod
    def make(stages):
        return CAGrad(c=0.2, stages=stages)

    gain = 1.2 / 1.04

    @pytest.mark.parametrize(
        ("c", "on_a", "on_b", "on_c"),
        [
            (
                0.5,
                [0.242249, 0.371263, 0.339949, -0.054440],
                [0.183503, 1.204124, 1.204124],
                [2.728869, 1.228869],
            ),
            (
                0.4,
                [0.223173, 0.342025, 0.313178, -0.050152],
                [0.346803, 1.163299, 1.163299],
                [2.583095, 1.083095],
            ),
        ],
    )
    def test_reference_values(self, c, on_a, on_b, on_c):
        for rows, expected in ((A, on_a), (B, on_b), (C, on_c)):
            # The spec's values for A come from a solver that stops 4e-6 short.
            near(CAGrad(c=c, rescale=0, stages=PAPER).direction(rows), expected, atol=5e-6)
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9


class TestWidestCAGrad(GramianLaws):
    @staticmethod
    def make(stages):
        return CAGrad(c=1.0, rescale=2, stages=stages)

    harmless = (2, 6)
    stationary_zero = True


def best_worst_case(rows, c):
    direction, worst = cvxpy.Variable(rows.shape[1]), cvxpy.Variable()
    mean = rows.mean(0)
    ball = cvxpy.norm(direction - mean) <= c * np.linalg.norm(mean)
    problem = cvxpy.Problem(cvxpy.Maximize(worst), [rows @ direction >= worst, ball])
    return problem.solve(solver=cvxpy.CLARABEL)


@pytest.mark.parametrize("c", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_worst_case_is_the_best_that_a_conic_solver_finds(tasks, c):
    for seed in range(3):
        rows = random_rows(tasks, seed)
        weights, stationary = cagrad_weights(rows @ rows.T, c)
        assert not stationary
        best = best_worst_case(rows.numpy(), c)
        assert float((rows @ (weights @ rows)).min()) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("c", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("tasks", [2, 5, 20])
def test_update_lies_on_the_rim_of_the_ball(tasks, c):
    for seed in range(5):
        rows = random_rows(tasks, seed, width=30)
        mean = rows.mean(0)
        found = cagrad_weights(rows @ rows.T, c)[0] @ rows
        assert float((found - mean).norm() / mean.norm()) == pytest.approx(c, rel=1e-9)


def test_two_tasks_equal_a_search_over_the_dual():
    rows = random_rows(2, 3)
    inner = rows @ rows.T
    mean = rows.mean(0)
    share = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    weights = torch.stack([share, 1 - share], 1)
    lengths = ((weights @ inner) * weights).sum(1).sqrt()
    values = weights @ inner.mean(1) + 0.5 * mean.norm() * lengths
    best = weights[values.argmin()] @ rows
    expected = mean + 0.5 * mean.norm() / best.norm() * best
    near(cagrad_weights(inner, 0.5)[0] @ rows, expected, atol=1e-4)


def test_limits_of_the_radius():
    rows = random_rows(5, 1)
    assert cagrad_weights(rows @ rows.T, 0.0)[0].tolist() == [0.2] * 5
    far = cagrad_weights(rows @ rows.T, 1e6)[0] @ rows
    assert torch.cosine_similarity(far, MGDA().direction(rows), dim=0) > 1 - 1e-9


@pytest.mark.parametrize(("rescale", "divisor"), [(0, 1), (1, 1.25), (2, 1.5)])
def test_rescale(rescale, divisor):
    plain = cagrad_weights(A @ A.T, 0.5)[0]
    torch.testing.assert_close(
        CAGrad(rescale=rescale, stages=PAPER).solve(A @ A.T), plain / divisor
    )
    # With the sum's length at consensus all agree.
    torch.testing.assert_close(CAGrad(rescale=rescale).solve(A @ A.T), plain * 3 / 1.5)


@pytest.mark.parametrize("c", [1.0, 1.5, 4.0])
def test_stationary_point_gives_zero_and_says_so(c):
    rows = random_rows(3, 2)
    rows[2] = -(2 * rows[0] + 0.3 * rows[1])
    balancer = CAGrad(c=c)
    assert float(balancer.direction(rows).norm() / rows.norm()) < 1e-6
    assert balancer.report["stationary"] == 1.0
    balancer.direction(random_rows(3, 2))
    assert balancer.report["stationary"] == 0.0


@pytest.mark.parametrize("c", [0.5, 1.0, 2.0])
def test_partial_stationarity_moves_the_free_task_only(c):
    rows = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    near(CAGrad(c=c, rescale=0, stages=PAPER).direction(rows), [0, 1 / 3, 0], atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torchjd(seed):
    rows = random_rows(4, seed)
    ours = CAGrad(c=0.5, rescale=0, stages=Stages(scale="paper")).direction(rows)
    peer = Peer(c=0.5)(rows)
    torch.testing.assert_close(ours, peer, rtol=0, atol=2e-3 * float(rows.norm()))


def test_arguments():
    with pytest.raises(ArgumentError, match="c must"):
        CAGrad(c=-0.1)
    with pytest.raises(ArgumentError, match="rescale"):
        CAGrad(rescale=3)
