import numpy as np
import pytest

from mtl_tabular.boosting.holdout import hold_out


@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.3, 0.5])
def test_every_task_and_target_gives_its_share(fraction):
    rng = np.random.default_rng(0)
    tasks, classes = rng.integers(0, 7, 2000), rng.integers(0, 3, 2000)
    held = hold_out(tasks, classes, fraction=fraction, seed=1)
    assert held.sum() == pytest.approx(2000 * fraction, abs=1)
    for t in range(7):
        assert held[tasks == t].sum() == pytest.approx((tasks == t).sum() * fraction, abs=1)
        for k in range(3):
            cell = (tasks == t) & (classes == k)
            assert held[cell].sum() == pytest.approx(cell.sum() * fraction, abs=1)


def test_no_task_loses_all_its_rows():
    tasks = np.arange(50)
    assert not hold_out(tasks, tasks, fraction=0.5, seed=0).any()


def test_the_seed_decides():
    tasks, y = np.zeros(100, int), np.zeros(100)
    first, again, other = (hold_out(tasks, y, fraction=0.2, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
