import numpy as np
import pandas as pd

from mtl_tabular.boosting.matrix import tree_columns, with_task
from mtl_tabular.data.schema import TableSchema

FRAME = pd.DataFrame({"x": [1.0, np.nan, 3.0], "c": ["a", None, "b"]})


def test_missing_values_are_nan_and_unseen_categories_zero():
    columns = tree_columns(TableSchema.fit(FRAME), FRAME.assign(c=["a", None, "z"]))
    assert columns.kinds == ("c", "q")
    np.testing.assert_array_equal(columns.values[:, 0], [2, np.nan, 0])
    assert np.isnan(columns.values[1, 1])
    assert columns[np.array([0, 2])].matrix().num_row() == 2


def test_categories_as_columns():
    columns = tree_columns(TableSchema.fit(FRAME), FRAME, one_hot=True)
    expected = [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(columns.values[:, :4], expected)
    assert columns.kinds == ("q",) * 5


def test_task_as_column():
    data = tree_columns(TableSchema.fit(FRAME), FRAME)
    ids = np.array([0, 1, 5])
    codes = with_task(data, ids, 2, one_hot=False)
    np.testing.assert_array_equal(codes.values[:, -1], [0, 1, np.nan])
    assert codes.kinds == ("c", "q", "c")
    columns = with_task(data, ids, 2, one_hot=True)
    np.testing.assert_array_equal(columns.values[:, -2:], [[1, 0], [0, 1], [0, 0]])
    assert columns.matrix(label=np.zeros(3)).num_col() == 4
