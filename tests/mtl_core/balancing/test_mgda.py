import pytest
import torch
from gramian_laws import PAPER, A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import MGDA as Peer  # noqa: N811

from mtl_core.balancing import MGDA, Stages
from mtl_core.errors import BalancerError

WEIGHTED = {"weight_decoders": True}
UNIT = {"row_scale": "l2"}


class TestMGDA(GramianLaws):
    make = MGDA
    stages = WEIGHTED
    harmless = (2, 6)
    stationary_zero = True

    def test_reference_values(self):
        near(MGDA(stages=PAPER).solve(A @ A.T), [0.369576, 0.340399, 0.290026])
        near(self.direction(A), [0.165336, 0.253391, 0.232021, -0.037158])
        near(self.direction(B), [0, 1, 1])
        near(self.direction(C), [1, 1])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9


class TestMGDAOfUnitRows(GramianLaws):
    make = MGDA
    stages = UNIT
    gain = None
    row_invariant = True
    harmless = (2, 6)
    stationary_zero = True

    @pytest.mark.parametrize("scale", [1e-8, 1e8])
    def test_degree_one_at_any_scale(self, scale):
        one = MGDA(stages=Stages(row_scale="l2")).direction(A)
        torch.testing.assert_close(
            MGDA(stages=Stages(row_scale="l2")).direction(A * scale), one * scale
        )

    @pytest.mark.parametrize("tasks", [1, 2, 5])
    def test_equal_rows(self, tasks):
        rows = random_rows(1, 1).expand(tasks, -1)
        found = MGDA(stages=Stages(row_scale="l2")).direction(rows)
        torch.testing.assert_close(found, rows.sum(0))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("tasks", [2, 4, 8])
def test_gain_of_every_task_is_at_least_the_squared_length(tasks, seed):
    rows = random_rows(tasks, seed)
    found = MGDA(stages=PAPER).direction(rows)
    assert torch.all(rows @ found >= (found @ found) * (1 - 1e-9))
    torch.testing.assert_close(
        MGDA(stages=PAPER).solve(rows @ rows.T).sum(), torch.tensor(1.0).double()
    )


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torchjd_given_many_iterations(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, 12, dtype=torch.float64, generator=generator)
    peer = Peer(epsilon=1e-10, max_iters=1000)
    ours = MGDA(stages=PAPER).direction(rows)
    torch.testing.assert_close(ours, peer(rows), rtol=0, atol=3e-2)
    assert ours.norm() <= peer(rows).norm() + 1e-12


@pytest.mark.parametrize("row_scale", ["l2", "loss", "loss+"])
def test_normalisations_solve_for_scaled_rows(row_scale):
    losses = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    lengths = A.norm(dim=1)
    size = {"l2": lengths, "loss": losses, "loss+": losses * lengths}[row_scale][:, None]
    found = MGDA(stages=Stages(scale="paper", row_scale=row_scale)).direction(A, losses)
    torch.testing.assert_close(found, MGDA(stages=PAPER).direction(A / size))


def test_normalising_by_losses_needs_positive_ones():
    with pytest.raises(BalancerError, match="positive losses"):
        MGDA(stages=Stages(row_scale="loss")).solve(A @ A.T, torch.tensor([1.0, -1, 1]))


def test_partial_stationarity_is_zero():
    rows = torch.tensor([[1.0, 0], [-1, 0], [0, 1]], dtype=torch.float64)
    near(MGDA(stages=PAPER).direction(rows), [0, 0])


def test_very_different_lengths():
    rows = random_rows(4, 7) * torch.tensor([1.0, 1e-7, 1e-7, 1e3])[:, None]
    inner = rows @ rows.T
    found = MGDA(stages=PAPER).solve(inner)
    assert torch.all(inner @ found >= (found @ inner @ found) * (1 - 1e-6) - 1e-18)
