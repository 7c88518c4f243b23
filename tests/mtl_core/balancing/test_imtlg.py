import pytest
import torch
from gramian_laws import PAPER, A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import IMTLG as Peer  # noqa: N811

from mtl_core.balancing import IMTLG
from mtl_core.balancing.imtlg import imtlg_weights
from mtl_core.errors import UnknownNameError


class TestIMTLG(GramianLaws):
    make = IMTLG
    row_invariant = True
    harmless = (2, 6)

    def test_reference_values(self):
        near(IMTLG(stages=PAPER).solve(A @ A.T), [0.364015, 0.339482, 0.296503])
        near(self.direction(A), [0.160326, 0.250531, 0.237203, -0.046600])
        near(self.direction(B), [0.076697, 1, 1])
        near(self.direction(C), [1.640754, 0.679623])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9


def turned_rows():
    """Rows whose weights of equal projections sum to less than zero."""
    for seed in range(1000):
        rows = random_rows(3, seed, width=4)
        if imtlg_weights(rows @ rows.T).sum() < 0:
            return rows
    raise AssertionError("none found")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("tasks", [2, 3, 6])
def test_projections_are_equal_and_weights_sum_to_one(tasks, seed):
    rows = random_rows(tasks, seed)
    weights = imtlg_weights(rows @ rows.T)
    projections = (rows @ (weights @ rows)) / rows.norm(dim=1)
    torch.testing.assert_close(projections, projections[:1].expand(tasks), rtol=1e-6, atol=0)
    assert float(weights.sum().abs()) == pytest.approx(1)


def test_two_tasks_have_a_closed_form():
    rows = random_rows(2, 0)
    a, b = rows.norm(dim=1)
    near(imtlg_weights(rows @ rows.T), torch.stack([b, a]) / (a + b))


def test_published_sign_turns_the_update_around():
    rows = turned_rows()
    assert torch.all(rows @ IMTLG(stages=PAPER).direction(rows) > 0)
    paper = IMTLG(sign="paper", stages=PAPER)
    assert torch.all(rows @ paper.direction(rows) < 0)
    assert float(paper.solve(rows @ rows.T).sum()) == pytest.approx(1)


def test_clamped_weights():
    rows = turned_rows()
    weights = IMTLG(clamp_negative=True, stages=PAPER).solve(rows @ rows.T)
    assert torch.all(weights >= 0)
    assert float(weights.sum()) == pytest.approx(1)


def test_opposite_rows_cancel():
    row = random_rows(1, 0)
    rows = torch.cat([row, -3 * row])
    near(imtlg_weights(rows @ rows.T), [0.75, 0.25])


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_torchjd_in_the_published_sign(seed):
    rows = random_rows(4, seed)
    ours = IMTLG(sign="paper", stages=PAPER).direction(rows)
    torch.testing.assert_close(ours, Peer()(rows), rtol=1e-5, atol=1e-8)


def test_sign_is_a_known_one():
    with pytest.raises(UnknownNameError, match="Did you mean paper"):
        IMTLG(sign="papr")
