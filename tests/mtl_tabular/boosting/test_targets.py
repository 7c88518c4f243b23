import numpy as np
import pandas as pd
import pytest

from mtl_tabular.boosting.targets import objective_of, row_weights, target_labels
from mtl_tabular.data.schema import ColumnError
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

LONG = pd.DataFrame({"site": [1, 2, 1, 2], "y": [1.0, 20.0, np.nan, 40.0]})


def test_rows_of_a_long_table_belong_to_their_task_only():
    tasks = {
        "a": NumericTarget(column="y", level="1", rows=1),
        "b": NumericTarget(column="y", level="2", rows=2),
    }
    labels = target_labels(tasks, LONG, task_column="site")
    assert labels["a"][1].tolist() == [True, False, False, False]
    assert labels["b"][1].tolist() == [False, True, False, True]
    assert labels["b"][0][labels["b"][1]].tolist() == [20.0, 40.0]


def test_a_class_of_another_task_is_no_error():
    frame = pd.DataFrame({"site": ["u", "u", "v", "v"], "y": ["a", "b", "c", "d"]})
    task = {"u": BinaryTarget(column="y", level="u", rows=2, classes=("a", "b"))}
    assert target_labels(task, frame, task_column="site")["u"][1].tolist() == [True, True, 0, 0]


def test_absent_columns_are_named_with_the_nearest():
    with pytest.raises(ColumnError, match=r"target column 'yy'.*Did you mean y"):
        target_labels({"yy": NumericTarget(rows=1)}, LONG)
    with pytest.raises(ColumnError, match=r"task column 'sites'.*Did you mean site"):
        target_labels({"y": NumericTarget(rows=1)}, LONG, task_column="sites")


def test_every_kind_has_its_objective():
    multi = MulticlassTarget(classes=("a", "b", "c"))
    assert objective_of(BinaryTarget())["objective"] == "binary:logistic"
    assert objective_of(multi)["num_class"] == 3
    losses = [objective_of(NumericTarget(loss=loss))["eval_metric"] for loss in ("mse", "mae")]
    assert losses == ["rmse", "mae"]


def test_positive_rows_weigh_more():
    weights = row_weights(BinaryTarget(pos_weight=3.0), np.array([0.0, 1.0]))
    assert weights.tolist() == [1.0, 3.0]
    assert row_weights(NumericTarget(), np.array([1.0, 1.0])).tolist() == [1.0, 1.0]
