import json

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.boosting.rows import (
    add_task_features,
    as_plain,
    feature_kinds,
    from_plain,
    known_tasks,
    take_task_column,
    task_codes,
)
from mtl_tabular.data.schema import ColumnError

FRAME = pd.DataFrame({"a": [1.0, 2.0], "t": ["u", "v"], "b": [3.0, 4.0]})


@pytest.mark.parametrize("frame", [FRAME, pl.from_pandas(FRAME)], ids=["pandas", "polars"])
@pytest.mark.parametrize("column", ["t", 1, -2])
def test_the_task_column_may_be_anywhere(frame, column):
    rest, task = take_task_column(frame, column)
    assert list(rest.columns) == ["a", "b"]
    assert task.tolist() == ["u", "v"]
    assert list(frame.columns) == ["a", "t", "b"]


@pytest.mark.parametrize("column", [0, 1, 2, -1])
def test_of_an_array(column):
    array = np.arange(6.0).reshape(2, 3)
    rest, task = take_task_column(array, column)
    np.testing.assert_array_equal(task, array[:, column])
    assert rest.shape == (2, 2)
    assert take_task_column(array, None)[0] is array


def test_absent_task_columns():
    with pytest.raises(ColumnError, match="Did you mean t"):
        take_task_column(FRAME, "tt")
    with pytest.raises(ColumnError, match=r"position in 0\.\.2, found 3"):
        take_task_column(FRAME, 3)
    with pytest.raises(ColumnError, match="must be a frame"):
        take_task_column(np.zeros((2, 2)), "t")


def test_tasks_are_any_values():
    for values in ([3, 1, 3], ["b", "a", "b"], [2.5, 1.0, 2.5], ["b", 1, "b"]):
        known = known_tasks(np.array(values, dtype=object), 3)
        assert len(known) == 2
        assert task_codes(np.array(values, dtype=object), known).tolist() == [1, 0, 1]
    assert task_codes([1.0, 9.0, np.nan], np.array([1, 2])).tolist() == [0, -1, -1]
    with pytest.raises(ArgumentError, match="name a task for every row"):
        known_tasks(np.array(["a", None], dtype=object), 2)
    with pytest.raises(ArgumentError, match="each of the 3 rows"):
        known_tasks(np.array([1, 2]), 3)


def test_kinds_of_features():
    assert feature_kinds(["b", 0], ["a", "b", "c"]) == ("c", "c", "q")
    with pytest.raises(UnknownNameError, match="Did you mean abc"):
        feature_kinds(["abd"], ["abc"])
    with pytest.raises(ArgumentError, match=r"lie in 0\.\.0"):
        feature_kinds([1], ["a"])


def test_task_features():
    values, ids = np.zeros((3, 1)), np.array([0, 1, -1])
    assert add_task_features(values, ids, 2, "none")[0] is values
    codes, kinds = add_task_features(values, ids, 2, "categorical")
    np.testing.assert_array_equal(codes[:, 1], [0, 1, np.nan])
    assert kinds == ("c",)
    hot, kinds = add_task_features(values, ids, 2, "one-hot")
    np.testing.assert_array_equal(hot[:, 1:], [[1, 0], [0, 1], [0, 0]])
    assert kinds == ("q", "q")


@pytest.mark.parametrize("values", [np.array([1, 2]), np.array(["a", "b"]), np.array([0.5])])
def test_arrays_survive_json(values):
    again = from_plain(json.loads(json.dumps(as_plain(values, "task"))))
    np.testing.assert_array_equal(again, values)
    assert again.dtype.kind == (values.dtype.kind if values.dtype.kind != "U" else "O")
    with pytest.raises(ArgumentError, match="text, numbers or booleans"):
        as_plain(np.array([(1, 2), None], dtype=object), "task")
