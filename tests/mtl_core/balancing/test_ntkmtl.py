import torch
from gramian_laws import PAPER, A, B, C, D, GramianLaws, near, random_rows

from mtl_core.balancing import DBMTL, NTKMTL


class TestNTKMTL(GramianLaws):
    make = NTKMTL
    per_task = True
    row_invariant = True
    harmless = (2,)

    def test_reference_values(self):
        near(NTKMTL(stages=PAPER).solve(A @ A.T), [1.080740, 1.021204, 0.918657])
        near(self.direction(A), [0.468018, 0.745607, 0.734926, -0.174046])
        near(self.direction(B), [0.161494, 2.105614, 2.105614])
        near(self.direction(C), [4.003520, 1.658312])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9


def test_direction_is_that_of_dual_balancing_without_average_and_log():
    rows = random_rows(5, 0)
    found, other = NTKMTL().direction(rows), DBMTL(beta=0, log=False).direction(rows)
    assert torch.cosine_similarity(found, other, dim=0) > 1 - 1e-9


def test_all_tasks_get_the_root_mean_square_length():
    rows = random_rows(5, 0)
    lengths = NTKMTL().solve(rows @ rows.T) * rows.norm(dim=1)
    torch.testing.assert_close(lengths, rows.square().sum(1).mean().sqrt().expand(5))
