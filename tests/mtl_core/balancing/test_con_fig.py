import pytest
import torch
from gramian_laws import PAPER, A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import ConFIG as Peer

from mtl_core.balancing import ConFIG


class TestConFIG(GramianLaws):
    make = ConFIG
    per_task = True
    row_invariant = True
    additive = True
    harmless = (2, 6)
    stationary_zero = False

    def test_reference_values(self):
        near(self.direction(A), [0.483733, 0.755896, 0.715683, -0.140599])
        near(self.direction(B), [0.158809, 2.070607, 2.070607])
        near(self.direction(C), [3.767767, 1.560660])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9


@pytest.mark.parametrize("tasks", [2, 3, 8])
@pytest.mark.parametrize("preference", [{}, {"0": 3.0}])
def test_cosines_are_as_asked_and_the_length_is_the_sum_of_projections(tasks, preference):
    rows = random_rows(tasks, 0)
    found = ConFIG(preference=preference).direction(rows)
    cosines = rows @ found / rows.norm(dim=1) / found.norm()
    asked = torch.tensor([preference.get(str(i), 1.0) for i in range(tasks)]).double()
    torch.testing.assert_close(cosines / cosines.mean(), asked / asked.mean())
    assert float(cosines.min()) > 0
    torch.testing.assert_close(found.norm(), (rows @ found / found.norm()).sum())


@pytest.mark.parametrize("tasks", [2, 5, 11])
def test_agrees_with_torchjd(tasks):
    rows = random_rows(tasks, 1)
    torch.testing.assert_close(ConFIG(stages=PAPER).direction(rows), Peer()(rows))


def test_opposite_rows_give_zero():
    rows = torch.tensor([[1.0, 2], [-1, -2]], dtype=torch.float64)
    assert not ConFIG().direction(rows).any()


@pytest.mark.parametrize("gap", [1e-2, 1e-4])
def test_vanishes_towards_opposition(gap):
    rows = torch.tensor([[1.0, gap], [-1, gap]], dtype=torch.float64)
    near(ConFIG().direction(rows), [0, 2 * gap], atol=1e-9)
