import pytest
import torch
from gramian_laws import PAPER, A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import UPGrad as Peer
from torchjd.linalg import QuadprogProjector
from toys import fit

from mtl_core.balancing import UPGrad
from mtl_core.balancing.pcgrad import pcgrad_weights
from mtl_core.errors import UnknownNameError


class TestUPGrad(GramianLaws):
    make = UPGrad
    additive = True
    harmless = (2, 6)
    stationary_zero = True

    def test_reference_values(self):
        near(UPGrad(stages=PAPER).solve(A @ A.T), [0.738780, 0.698895, 0.631634])
        near(self.direction(A), [0.319443, 0.509405, 0.505307, -0.122465])
        near(self.direction(B), [0.292398, 1.900585, 1.900585])
        near(self.direction(C), [2, 0.5])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_two_tasks_are_half_of_pcgrad(seed):
    rows = random_rows(2, seed)
    orders = torch.arange(2).expand(2, 2)
    expected = pcgrad_weights(rows @ rows.T, orders) / 2
    torch.testing.assert_close(
        UPGrad(stages=PAPER).solve(rows @ rows.T), expected, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("preference", [None, {"1": 2.5, "3": 0.2}])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torchjd_without_its_regularisation(preference, seed):
    rows = random_rows(4, seed)
    given = torch.tensor([(preference or {}).get(str(i), 1.0) for i in range(4)]).double()
    peer = Peer(given / given.sum(), projector=QuadprogProjector(norm_eps=0.0, reg_eps=1e-12))
    ours = UPGrad(preference=preference, stages=PAPER).direction(rows)
    torch.testing.assert_close(ours, peer(rows), rtol=1e-5, atol=1e-6)


def test_partial_stationarity_still_moves_the_free_task():
    rows = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    near(UPGrad(stages=PAPER).direction(rows), [0, 1 / 3, 0], atol=1e-6)


def test_preferences_name_tasks():
    with pytest.raises(UnknownNameError, match="Did you mean size"):
        fit(UPGrad(preference={"sise": 0.5}), max_steps=1)
