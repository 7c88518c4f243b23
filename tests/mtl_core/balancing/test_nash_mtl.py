import pytest
import torch
from gramian_laws import A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import NashMTL as Peer

from mtl_core.balancing import NashMTL, Stages

EXACT = Stages(norm="free")


class TestNashMTL(GramianLaws):
    make = NashMTL
    row_invariant = True
    harmless = (2, 6)
    stationary_zero = True

    def test_reference_values(self):
        near(NashMTL(stages=EXACT).solve(A @ A.T), [1.639381, 1.532375, 1.346105])
        near(self.direction(A), [0.719956, 1.128543, 1.076884, -0.219940])
        near(self.direction(B), [0.076584, 0.998533, 0.998533])
        near(self.direction(C), [1.306563, 0.541196])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9

    @pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e3, 1e8])
    def test_degree_one_at_any_scale(self, scale):
        """Degree zero, rather."""
        for rows in (A, B, C, D, random_rows(6, 0)):
            torch.testing.assert_close(
                self.direction(rows * scale), self.direction(rows), rtol=1e-6, atol=1e-9
            )

    @pytest.mark.parametrize("tasks", [1, 2, 5])
    def test_equal_rows(self, tasks):
        rows = random_rows(1, 1).expand(tasks, -1)
        found = self.direction(rows)
        torch.testing.assert_close(found, rows[0] / rows[0].norm() * tasks**0.5)
        whole = self.fresh(norm="sum").direction(rows)
        torch.testing.assert_close(whole, rows.sum(0))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("tasks", [1, 2, 5, 20])
def test_identities(tasks, seed):
    rows = random_rows(tasks, seed, width=30)
    inner = rows @ rows.T
    alpha = NashMTL(stages=EXACT).solve(inner)
    assert torch.all(alpha > 0)
    torch.testing.assert_close(alpha * (inner @ alpha), torch.ones_like(alpha), rtol=1e-6, atol=0)
    assert float((alpha @ rows).norm()) == pytest.approx(tasks**0.5, rel=1e-6)
    factors = torch.logspace(-3, 3, tasks, dtype=torch.float64)
    scaled = NashMTL(stages=EXACT).solve(inner * torch.outer(factors, factors))
    torch.testing.assert_close(scaled, alpha / factors, rtol=1e-6, atol=0)


def test_two_tasks_have_a_closed_form():
    rows = random_rows(2, 0)
    cosine = torch.cosine_similarity(rows[0], rows[1], dim=0)
    near(NashMTL(stages=EXACT).solve(rows @ rows.T), 1 / (rows.norm(dim=1) * (1 + cosine).sqrt()))


def test_default_clips_to_length_one_and_keeps_decoder_weights():
    rows = random_rows(3, 0)
    assert float(NashMTL().direction(rows).norm()) == pytest.approx(1)
    assert NashMTL().stages == Stages(norm="max", max_norm=1.0, weight_decoders=True)


def test_keeping_the_length_of_the_sum():
    rows = random_rows(3, 0)
    found = NashMTL(stages=Stages(norm="sum")).direction(rows)
    torch.testing.assert_close(found.norm(), rows.sum(0).norm())


@pytest.mark.parametrize("norm", ["free", "sum", "max"])
def test_stationary_point_fades_out_and_says_so(norm):
    rows = random_rows(3, 2)
    rows[2] = -(2 * rows[0] + 0.3 * rows[1])
    balancer = NashMTL(stages=Stages(norm=norm))
    assert float(balancer.direction(rows).norm()) < 1e-3
    assert balancer.report["stationary"] == 1.0
    near_by = rows + 1e-6 * random_rows(3, 9)
    assert bool(torch.isfinite(balancer.direction(near_by)).all())
    balancer.direction(random_rows(3, 2))
    assert balancer.report["stationary"] == 0.0


def test_warm_start_does_not_change_the_answer():
    warm = NashMTL(stages=EXACT)
    opposite = torch.tensor([[1.0, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.float64)
    for rows in (opposite, A, A * 1e6, opposite, A):
        found = warm.solve(rows @ rows.T)
    torch.testing.assert_close(found, NashMTL(stages=EXACT).solve(A @ A.T), rtol=1e-8, atol=0)


def test_absent_tasks_keep_their_former_answer():
    balancer = NashMTL()
    balancer.solve(A @ A.T)
    former = balancer.former.clone()
    inner = A @ A.T
    inner[1], inner[:, 1] = 0, 0
    balancer.solve(inner)
    assert balancer.former[1] == former[1]
    assert balancer.former[0] != former[0]


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")  # TorchJD's
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchjd_where_that_converges(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, 12, dtype=torch.float64, generator=generator)
    ours = NashMTL().direction(rows)
    peer = Peer(n_tasks=3, max_norm=1.0, optim_niter=100)(rows)
    torch.testing.assert_close(ours, peer, rtol=0, atol=1e-2)
