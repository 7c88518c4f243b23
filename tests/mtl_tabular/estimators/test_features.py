import numpy as np
import pandas as pd
import polars as pl
import pytest

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.estimators.features import categorical_names, feature_frame, to_pandas


def test_objects_that_are_numbers_become_numbers_and_text_stays():
    array = np.array([[1, "a", None], [2.5, "b", 3]], dtype=object)
    frame = feature_frame(array, ["n", "t", "m"])
    assert frame["n"].dtype == frame["m"].dtype == np.float64
    assert frame["t"].tolist() == ["a", "b"]
    assert np.isnan(frame["m"][0])


def test_frames_keep_their_types_and_are_not_changed():
    given = pd.DataFrame({"c": pd.Categorical(["x", "y"]), 3: [1, 2]})
    frame = feature_frame(given, ["c", "3"])
    assert isinstance(frame["c"].dtype, pd.CategoricalDtype)
    assert given.columns.tolist() == ["c", 3]


def test_polars_becomes_pandas():
    frame = to_pandas(pl.DataFrame({"a": [1.0, None], "b": ["x", "y"]}))
    assert isinstance(frame, pd.DataFrame)
    assert frame.isna().sum().tolist() == [1, 0]
    assert to_pandas("anything") == "anything"


@pytest.mark.parametrize("given", [["a", "c"], [0, 2], [0, -1], [True, False, True]])
def test_names_indices_and_masks_say_the_same(given):
    assert categorical_names(given, ["a", "b", "c"]) == ("a", "c")


def test_from_dtype_names_nothing():
    assert categorical_names("from_dtype", ["a"]) == ()


def test_mistakes_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean city"):
        categorical_names(["citi"], ["city", "age"])
    with pytest.raises(ArgumentError, match="indices below 2"):
        categorical_names([2], ["city", "age"])
    with pytest.raises(ArgumentError, match="hold 2 entries"):
        categorical_names([True], ["city", "age"])
    with pytest.raises(ArgumentError, match="'from_dtype' or a list"):
        categorical_names("from_type", ["city"])
