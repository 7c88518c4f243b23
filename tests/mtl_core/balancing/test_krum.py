import pytest
import torch
from gramian_laws import PAPER, GramianLaws, random_rows
from torchjd.aggregation import Krum as Peer

from mtl_core.balancing import Krum
from mtl_core.balancing.krum import krum_weights
from mtl_core.errors import ArgumentError


class TestKrum(GramianLaws):
    make = Krum


def test_outlier_is_never_followed():
    rows = torch.ones(5, 3, dtype=torch.float64) + 0.1 * random_rows(5, 0, width=3)
    rows[2] = -50.0
    assert Krum(byzantine=1).solve(rows @ rows.T)[2] == 0
    assert Krum(byzantine=1, selected=4).solve(rows @ rows.T)[2] == 0


def test_score_is_the_sum_of_the_closest_squares():
    rows = torch.tensor([[0.0], [1.0], [2.5], [10.0], [10.1]], dtype=torch.float64)
    far = (rows - rows.T).square()
    for closest in (1, 2, 3):
        scores = far.sort(1).values[:, 1 : closest + 1].sum(1)
        weights = krum_weights(rows @ rows.T, closest=closest, selected=1)
        assert int(weights.argmax()) == int(scores.argmin())


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_torchjd_on_plain_distances(seed):
    rows = random_rows(6, seed)
    ours = Krum(byzantine=1, selected=2, squared=False, stages=PAPER).direction(rows)
    torch.testing.assert_close(ours, Peer(n_byzantine=1, n_selected=2)(rows))


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_few_tasks_are_followed_all_the_same(tasks):
    rows = random_rows(tasks, 0)
    weights = Krum(byzantine=3, selected=5, stages=PAPER).solve(rows @ rows.T)
    assert weights.tolist() == pytest.approx([1 / tasks] * tasks)


def test_arguments():
    with pytest.raises(ArgumentError, match="byzantine"):
        Krum(byzantine=-1)
    with pytest.raises(ArgumentError, match="selected"):
        Krum(selected=0)
