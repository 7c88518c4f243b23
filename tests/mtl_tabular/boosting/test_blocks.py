import numpy as np
import pytest
import xgboost as xgb

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.blocks import RowSet, TreeBlock

PARAMETERS = {"max_depth": 3, "learning_rate": 0.2, "nthread": 1, "tree_method": "hist", "seed": 0}
n = 200
X = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
Y = X[:, :2] * 2 + 1


def grown(rounds, outputs=1, block=None, matrix=None, **parameters):
    block = block or TreeBlock(PARAMETERS | parameters, outputs=outputs)
    matrix = matrix or xgb.QuantileDMatrix(X)
    for _ in range(rounds):
        block.grow(matrix, block.scores(matrix) - Y[:, :outputs], np.ones((n, outputs)))
    return block


@pytest.mark.parametrize("outputs", [1, 2])
def test_growing_is_xgboosts_own_training(outputs):
    own = xgb.train(
        PARAMETERS | {"base_score": 0.0}, xgb.QuantileDMatrix(X, label=Y[:, :outputs]), 10
    )
    rows = xgb.DMatrix(X)
    block = grown(10, outputs)
    np.testing.assert_allclose(block.scores(rows), own.predict(rows).reshape(n, outputs), atol=1e-6)


def test_parts_add_up():
    block, rows = grown(6), xgb.DMatrix(X)
    total = block.part(rows, 0, 2) + block.part(rows, 2, 9)
    np.testing.assert_allclose(total, block.scores(rows), atol=1e-6)
    assert not block.part(rows, 6, 8).any()
    assert not TreeBlock(PARAMETERS).scores(rows).any()


def test_a_block_kept_short_goes_on_as_if_it_had_never_been_longer():
    rows, matrix = xgb.DMatrix(X), xgb.QuantileDMatrix(X)
    short = grown(6, subsample=0.6)
    short.keep(3)
    assert short.rounds == 3
    again = grown(3, block=short, matrix=matrix)
    np.testing.assert_array_equal(again.scores(rows), grown(6, subsample=0.6).scores(rows))
    again.keep(0)
    assert not again.scores(rows).any()
    assert grown(2, block=again).rounds == 2


def test_state_is_plain_and_complete():
    rows = xgb.DMatrix(X)
    block = grown(4, 2)
    restored = TreeBlock(PARAMETERS, outputs=2).restore(block.state())
    np.testing.assert_array_equal(restored.scores(rows), block.scores(rows))
    np.testing.assert_array_equal(
        grown(2, 2, restored).scores(rows), grown(2, 2, block).scores(rows)
    )
    empty = TreeBlock(PARAMETERS).restore(TreeBlock(PARAMETERS).state())
    assert empty.rounds == 0


def test_gains_know_the_features_that_matter():
    gains = grown(5).gains(3)
    assert gains[0] > 100 * gains[2]
    assert TreeBlock(PARAMETERS).gains(3).tolist() == [0, 0, 0]


def test_rows_by_task():
    tasks = np.array([0, 0, 2, 2, 2])
    rows = RowSet(X[:5], Y[:5, 0], np.ones(5), tasks, 3, ("q",) * 3)
    assert rows.slices == {0: slice(0, 2), 2: slice(2, 5)}
    assert rows.task_matrices[2].num_row() == 3
    assert len(rows) == rows.matrix.num_row() == 5
    with pytest.raises(ArgumentError, match="ascending"):
        RowSet(X[:2], Y[:2, 0], np.ones(2), np.array([1, 0]), 2, ("q",) * 3)
