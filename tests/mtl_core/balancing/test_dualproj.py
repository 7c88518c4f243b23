import pytest
import torch
from gramian_laws import PAPER, A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import DualProj as Peer
from torchjd.linalg import QuadprogProjector

from mtl_core.balancing import DualProj


class TestDualProj(GramianLaws):
    make = DualProj
    harmless = (2, 6)
    stationary_zero = True

    def test_reference_values(self):
        near(DualProj(stages=PAPER).solve(A @ A.T), [1 / 3] * 3)
        near(self.direction(A), [0.133333, 0.233333, 0.266667, -0.1])
        near(self.direction(B), [0.555556, 1.111111, 1.111111])
        near(self.direction(C), [2, 0.5])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9


@pytest.mark.parametrize("preference", [None, {"1": 2.5, "3": 0.2}])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torchjd_without_its_regularisation(preference, seed):
    rows = random_rows(4, seed)
    given = torch.tensor([(preference or {}).get(str(i), 1.0) for i in range(4)]).double()
    peer = Peer(given / given.sum(), projector=QuadprogProjector(norm_eps=0.0, reg_eps=1e-12))
    ours = DualProj(preference=preference, stages=PAPER).direction(rows)
    torch.testing.assert_close(ours, peer(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_tasks_that_the_mean_would_hurt_gain_nothing(seed):
    rows = random_rows(4, seed)
    mean = rows.mean(0)
    found = DualProj(stages=PAPER).direction(rows)
    if bool((rows @ mean >= 0).all()):
        torch.testing.assert_close(found, mean)
    else:
        gains = rows @ found / rows.norm(dim=1) / found.norm()
        assert float(gains.abs().min()) < 1e-6
