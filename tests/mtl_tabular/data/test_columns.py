"""Values of one column as numbers and as categories; more in `test_schema.py`."""

import numpy as np
import pandas as pd
import pytest

from mtl_tabular.data.columns import CategoricalColumn, ColumnError, as_categories, as_numbers


@pytest.mark.parametrize("dtype", ["float32", "Int64", "object", "str", "int64[pyarrow]"])
def test_numbers_of_every_type(dtype):
    numbers = as_numbers(pd.Series([1, None, 3], dtype=dtype))
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, [1, np.nan, 3])


def test_rows_in_errors_are_those_of_the_index():
    with pytest.raises(ColumnError, match=r"'x'.*\['a'\] in rows \[7\]"):
        as_numbers(pd.Series([1, "a"], dtype=object, index=[3, 7], name="x"))


def test_categories_are_positions_in_a_list_of_texts():
    positions, texts = as_categories(pd.Series(["b", None, "a", "b"]))
    assert [texts[p] if p >= 0 else None for p in positions] == ["b", None, "a", "b"]
    with pytest.raises(ColumnError, match=r"'x'.*list"):
        as_categories(pd.Series([[1]], name="x"))


def test_special_codes_count():
    assert CategoricalColumn(name="x", levels=("a", "b")).cardinality == 4
