import pytest
import torch
from gramian_laws import A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import FairGrad as Peer

from mtl_core.balancing import FairGrad, NashMTL, Stages
from mtl_core.errors import ArgumentError

EXACT = Stages(norm="free")


class TestFairGrad(GramianLaws):
    make = FairGrad
    harmless = (2, 6)
    stationary_zero = True

    def test_reference_values(self):
        near(FairGrad().solve(A @ A.T), [1.894756, 1.759585, 1.524347])
        near(self.direction(A), [0.839005, 1.302281, 1.219478, -0.225052])
        near(self.direction(B), [0.031274, 0.790817, 0.790817])
        near(self.direction(C), [0.907516, 0.502781])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9

    @pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e3, 1e8])
    def test_degree_one_at_any_scale(self, scale):
        """Degree -1/3, rather."""
        for rows in (A, B, C, D, random_rows(6, 0)):
            torch.testing.assert_close(
                self.direction(rows * scale) * scale ** (1 / 3),
                self.direction(rows),
                rtol=1e-6,
                atol=1e-9,
            )

    @pytest.mark.parametrize("tasks", [1, 2, 5])
    def test_equal_rows(self, tasks):
        rows = random_rows(1, 1).expand(tasks, -1)
        square = float(rows[0] @ rows[0])
        expected = rows[0] * tasks * (tasks * square) ** (-2 / 3)
        torch.testing.assert_close(self.direction(rows), expected)
        whole = self.fresh(norm="sum").direction(rows)
        torch.testing.assert_close(whole, rows.sum(0))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("tasks", [2, 6, 20])
def test_gains_are_the_inverse_power_of_the_weights(tasks, alpha):
    for seed in range(5):
        rows = random_rows(tasks, seed, width=30)
        inner = rows @ rows.T
        ridged = inner + 1e-8 * inner.diagonal().diag()
        weights = FairGrad(alpha=alpha).solve(inner)
        assert torch.all(weights > 0)
        torch.testing.assert_close(
            (ridged @ weights) * weights ** (1 / alpha), torch.ones_like(weights), rtol=1e-4, atol=0
        )
        scaled = FairGrad(alpha=alpha).solve(inner * 1e-12)
        torch.testing.assert_close(scaled, weights * (1e-6) ** (-2 * alpha / (1 + alpha)))


def test_alpha_one_is_nash():
    near(FairGrad(alpha=1.0).solve(A @ A.T), NashMTL(stages=EXACT).solve(A @ A.T))


def test_small_alpha_goes_to_equal_weights():
    weights = FairGrad(alpha=1e-3).solve(A @ A.T)
    assert float(weights.max() / weights.min()) < 1.01


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torchjd_where_that_converges(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(4, 12, dtype=torch.float64, generator=generator)
    peer = Peer(alpha=2.0)(rows)
    torch.testing.assert_close(FairGrad().direction(rows), peer, rtol=0, atol=1e-4)


def test_alpha_is_positive():
    with pytest.raises(ArgumentError, match="alpha"):
        FairGrad(alpha=0.0)
