import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import nn

from mtl_core.errors import ArgumentError, LabelError
from mtl_tabular.estimators.targets import (
    assemble,
    class_record,
    classes_of,
    probabilities,
    read_targets,
    task_identifiers,
)
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget


def read(y):
    return read_targets(y, estimator="Estimator")


FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", None]})


@pytest.mark.parametrize("y", [FRAME, pl.from_pandas(FRAME), dict(FRAME.items())])
def test_frames_and_mappings_say_the_same(y):
    targets = read(y)
    assert targets.form == "frame"
    assert len(targets) == 2
    assert targets.columns["a"].tolist() == [1, 2]
    assert pd.isna(targets.columns["b"]).tolist() == [False, True]


def test_vectors_keep_name_and_type():
    assert list(read(pd.Series([1, 2], name="age")).columns) == ["age"]
    assert read(np.array(["u", "v"])).columns["y"].dtype.kind == "U"
    assert read([1, 2]).form == "vector"


def test_nested_lists_keep_numbers_beside_text():
    targets = read([[1, "a"], [2, "b"]])
    assert targets.form == "array"
    assert targets.columns["y0"].dtype.kind == "i"
    assert targets.columns["y1"].tolist() == ["a", "b"]


@pytest.mark.parametrize("missing", [[1.0, np.nan], pd.Series(["a", None])])
def test_one_task_needs_all_labels(missing):
    with pytest.raises(ValueError, match="Input y contains NaN"):
        read(missing)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="requires y to be passed"):
        read(None)
    with pytest.raises(ArgumentError, match="columns of one length"):
        read({"a": [1, 2], "b": [1]})
    with pytest.raises(ArgumentError, match="different names"):
        read(pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]))


def test_identifiers_can_key_modules():
    names = task_identifiers(["click", "a b", "a.b", "type", "keys", "training", "2x", ""])
    assert names[:3] == ["click", "a_b", "a_b_"]
    assert all(name.isidentifier() for name in names)
    nn.ModuleDict({name: nn.Identity() for name in names})


def test_classes_have_the_order_and_type_of_their_values():
    assert classes_of("t", np.array([10, 9, 10])).tolist() == [9, 10]
    assert classes_of("t", np.array(["b", None, "a"], dtype=object)).tolist() == ["a", "b"]
    assert classes_of("t", np.array([1.0, np.nan, 0.0])).dtype == np.float64
    assert classes_of("t", np.array([True, None, False], dtype=object)).dtype == bool


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1, 1]), "at least two classes"),
        (np.array([np.nan, np.nan]), "at least one row"),
        (np.array([1.0, np.inf]), "finite"),
        (np.array(["a", 1], dtype=object), "of one type"),
        (np.array([0.1, 0.2, 1.5]), "Unknown label type: continuous"),
    ],
)
def test_labels_that_are_no_classes(values, message):
    with pytest.raises(ValueError, match=message):
        classes_of("t", values)


def test_records_follow_the_number_of_classes():
    two, three = np.array([0, 5]), np.array(["a", "b", "c"])
    assert class_record("t", two) == BinaryTarget(classes=("0", "5"))
    assert isinstance(class_record("t", three), MulticlassTarget)
    assert isinstance(class_record("t", two, MulticlassTarget()), MulticlassTarget)
    assert class_record("t", two, BinaryTarget(pos_weight=3.0)).pos_weight == 3.0
    with pytest.raises(LabelError, match="two classes"):
        class_record("t", three, BinaryTarget())


def test_probabilities_sum_to_one():
    one = probabilities(torch.tensor([[0.25], [1.0]]))
    np.testing.assert_array_equal(one, [[0.75, 0.25], [0.0, 1.0]])
    assert probabilities(torch.full((2, 3), 1 / 3)).shape == (2, 3)


def test_predictions_take_the_form_of_y():
    columns = {"a": np.array([1, 2]), "b": np.array([0.5, 1.5])}
    assert assemble(columns, "array").dtype == np.float64
    assert assemble({"a": columns["a"], "t": np.array(["x", "y"])}, "array").tolist() == [
        [1, "x"],
        [2, "y"],
    ]
    assert assemble(columns, "frame").dtypes.astype(str).tolist() == ["int64", "float64"]
    assert assemble({"a": columns["a"]}, "vector") is columns["a"]
