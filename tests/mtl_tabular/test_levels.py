"""The same value has the same text, whatever type a file or frame gives it."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from mtl_tabular.levels import as_text, encode_levels, sorted_levels, text_codes


def texts(values, dtype=None) -> list[str]:
    return as_text(pd.Series(values, dtype=dtype))[0].tolist()


@pytest.mark.parametrize(
    "dtype",
    [
        "int8",
        "uint16",
        "int64",
        "float32",
        "float64",
        "Int64",
        "Float64",
        "str",
        "object",
        "category",
        "int64[pyarrow]",
    ],
)
def test_whole_numbers_are_one_level_in_every_type(dtype):
    assert texts([3, 0, 12, 3], dtype) == ["3", "0", "12", "3"]


def test_numbers_read_as_floats_as_text_and_as_objects_agree():
    assert texts([3.0, 3, "3", np.int8(3), np.float32(3), decimal.Decimal(3)], object) == ["3"] * 6


@pytest.mark.parametrize("dtype", ["float32", "float64", "Float64", "object", "category"])
def test_fractions_have_the_digits_of_their_own_precision(dtype):
    assert texts([0.1, -2.5, 1e-5], dtype) == ["0.1", "-2.5", "1e-05"]


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object", "category", "bool[pyarrow]"])
def test_booleans(dtype):
    assert texts([True, False, True], dtype) == ["True", "False", "True"]


def test_booleans_are_no_numbers():
    assert texts([True, 1, 1.0, False, 0], object) == ["True", "1", "1", "False", "0"]


def test_zero_has_no_sign():
    assert texts([-0.0, 0.0]) == ["0", "0"]
    assert texts([-0.0]) == ["0"]


@pytest.mark.parametrize("dtype", ["int64", "Int64", "object", "float64"])
def test_large_integers_stay_apart(dtype):
    """Up to where floats can tell them apart; integers without bound."""
    assert texts([2**53, 2**53 - 1], dtype) == ["9007199254740992", "9007199254740991"]


def test_integers_beyond_floats_stay_apart():
    assert texts([2**53, 2**53 + 1], "int64") == ["9007199254740992", "9007199254740993"]
    assert texts([2**53, 2**53 + 1, None], "Int64")[:2] == ["9007199254740992", "9007199254740993"]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_missing_values_of_every_kind(missing):
    found, absent = as_text(pd.Series(["a", missing, 3], dtype=object))
    assert absent.tolist() == [False, True, False]
    assert found[[0, 2]].tolist() == ["a", "3"]
    codes, levels = text_codes(pd.Series(["a", missing], dtype=object))
    assert (codes.tolist(), levels) == ([0, -1], ["a"])


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "str", "category", "object"])
def test_columns_without_any_value_and_without_rows(dtype):
    for values in ([None, None], []):
        found, absent = as_text(pd.Series(values, dtype=dtype))
        assert len(found) == len(absent) == len(values)
        assert absent.all()


def test_codes_point_to_the_texts():
    values = pd.Series(["b", 3.0, None, "3", 3], dtype=object)
    codes, levels = text_codes(values)
    assert [levels[c] if c >= 0 else "" for c in codes] == as_text(values)[0].tolist()


@pytest.mark.parametrize(
    "odd",
    [
        *([1, 2], (1, 2), {"a": 1}, {1}, np.arange(2), 1j),
        *(datetime.date(2020, 1, 1), datetime.time(1), pd.Timestamp("2020-01-01")),
        *(pd.Timedelta("1h"), pd.Period("2020")),
    ],
)
def test_dates_and_containers_are_refused(odd):
    for values in (pd.Series(["a", odd], dtype=object), pd.Series([odd, odd], dtype=object)):
        with pytest.raises(TypeError, match=type(odd).__name__):
            as_text(values)
        with pytest.raises(TypeError, match=type(odd).__name__):
            text_codes(values)


def test_columns_of_dates_are_refused():
    dates = pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01"]))
    for values in (dates, dates.astype("category"), dates.dt.tz_localize("UTC")):
        with pytest.raises(TypeError, match="2020"):
            as_text(values)


def test_infinity_is_no_category_but_its_name_may_be_one():
    with pytest.raises(TypeError, match="infinity"):
        text_codes(pd.Series([1.0, -np.inf]))
    assert text_codes(pd.Series(["inf", "nan"]))[1] == ["inf", "nan"]


def test_bins_of_pandas_are_categories():
    assert texts(pd.cut(pd.Series([1, 4]), [0, 2, 5])) == ["(0, 2]", "(2, 5]"]


def test_order_is_by_value_then_by_alphabet():
    assert sorted_levels(np.array(["b", "10", "2", "-1", "a", "2", "0.5"], dtype=object)) == [
        "-1", "0.5", "2", "10", "a", "b"
    ]  # fmt: skip


def test_encoding_inverts_the_list_of_levels():
    levels = ("a", "b", "3")
    chosen = np.array([2, 0, 1, 0])
    found = encode_levels(np.array(levels, dtype=object)[chosen], levels)
    assert found.tolist() == chosen.tolist()
    assert encode_levels(np.array(["z", "A", "3.0"], dtype=object), levels).tolist() == [-1] * 3
    assert encode_levels(np.array(["a"], dtype=object), ()).tolist() == [-1]
