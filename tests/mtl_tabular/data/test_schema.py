"""What a schema learns from training rows, and what it makes of any others."""

import dataclasses
import datetime
import decimal
import json

import numpy as np
import pandas as pd
import pytest
from jsonargparse import ArgumentParser
from toy_tables import wide_frame

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.rebuild import build, describe
from mtl_tabular.data import CategoricalColumn, ColumnError, NumericColumn, TableSchema
from mtl_tabular.data.column_fits import NumericFit
from mtl_tabular.data.schema import MISSING, UNSEEN
from mtl_tabular.networks import SharedBottom
from mtl_tabular.tasks import NumericTarget


def frame(rows: int = 500, seed: int = 0) -> pd.DataFrame:
    """Two numeric columns, one far from zero, and three categorical ones; values are missing."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "far": rng.normal(1e6, 0.5, rows),
            "near": rng.normal(size=rows),
            "city": rng.choice(["Oslo", "Rome", "Lima"], rows),
            "zone": rng.integers(0, 12, rows),
            "member": rng.random(rows) < 0.5,
        }
    )
    table.loc[::7, "near"] = None
    table.loc[::9, "city"] = None
    return table


def fit_one(values, dtype=None, **options) -> NumericColumn | CategoricalColumn:
    """The only column of a schema."""
    schema = TableSchema.fit(pd.DataFrame({"x": pd.Series(values, dtype=dtype)}), **options)
    return (*schema.categorical, *schema.numeric)[0]


def codes_of(schema: TableSchema, values, dtype=None) -> list[int]:
    """Codes of a column ``x``."""
    rows = pd.DataFrame({"x": pd.Series(values, dtype=dtype)})
    return schema.encode(rows)["categorical"][:, 0].tolist()


def test_training_rows_become_standardised():
    schema = TableSchema.fit(frame(), categorical=["zone"])
    numbers = schema.encode(frame())["numeric"].astype(np.float64)
    np.testing.assert_allclose(np.nanmean(numbers, 0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(numbers, 0), 1, rtol=1e-6)
    assert [c.missing for c in schema.numeric] == [False, True]
    assert schema.numeric[1].median == np.nanmedian(frame()["near"])


def test_types_and_order_of_inputs():
    table = frame()
    schema = TableSchema.fit(table, categorical=["zone"])
    assert schema.names == ("city", "zone", "member", "far", "near")
    assert schema.cardinalities == (5, 14, 4)
    assert len(schema) == 5
    arrays = schema.encode(table)
    assert {n: (a.dtype, a.shape) for n, a in arrays.items()} == {
        "numeric": (np.float32, (500, 2)),
        "categorical": (np.int64, (500, 3)),
    }
    np.testing.assert_array_equal(np.isnan(arrays["numeric"][:, 1]), table["near"].isna())
    np.testing.assert_array_equal(arrays["categorical"][:, 0] == MISSING, table["city"].isna())
    np.testing.assert_array_equal(arrays["categorical"][:, 1], table["zone"] + 2)


@pytest.mark.parametrize("rows", [1, 7, 100, 499])
def test_chunks_teach_what_the_whole_does(rows):
    table = frame()
    whole = TableSchema.fit(table, categorical=["zone"], min_frequency=2, max_levels=9)
    pieces = (table.iloc[i : i + rows] for i in range(0, len(table), rows))
    parts = TableSchema.fit(pieces, categorical=["zone"], min_frequency=2, max_levels=9)
    assert parts.categorical == whole.categorical
    for one, other in zip(parts.numeric, whole.numeric, strict=True):
        assert (one.name, one.median, one.missing) == (other.name, other.median, other.missing)
        assert one.mean == pytest.approx(other.mean, rel=1e-12, abs=1e-14)
        assert one.std == pytest.approx(other.std, rel=1e-9 if one.name == "far" else 1e-12)


def test_spread_of_a_column_far_from_zero_is_exact():
    """Against exact arithmetic: a sum of squares minus a squared sum would lose all digits."""
    values = [1e9 + k for k in range(1000)]
    column = fit_one(values)
    exact = decimal.Decimal(1000**2 - 1) / 12
    assert column.mean == pytest.approx(1e9 + 499.5, rel=1e-15)
    assert column.std == pytest.approx(float(exact.sqrt()), rel=1e-12)
    pieces = [pd.DataFrame({"x": values[i : i + 30]}) for i in range(0, 1000, 30)]
    assert TableSchema.fit(pieces).numeric[0].std == pytest.approx(column.std, rel=1e-12)


def test_median_of_very_many_rows_is_that_of_a_sample(monkeypatch):
    monkeypatch.setattr(NumericFit, "SAMPLE", 200)
    values = np.random.default_rng(0).normal(size=5000)
    pieces = [pd.DataFrame({"x": part}) for part in np.split(values, 100)]
    column = TableSchema.fit(pieces).numeric[0]
    assert abs(column.median - np.median(values)) < 0.3
    assert column == TableSchema.fit(pieces).numeric[0]


def test_order_of_columns_and_further_columns_do_not_matter():
    table = frame()
    schema = TableSchema.fit(table)
    other = table[["member", "near", "zone", "city", "far"]].assign(extra=pd.Timestamp("2020"))
    for name, array in schema.encode(table).items():
        np.testing.assert_array_equal(schema.encode(other)[name], array)


def test_a_row_is_encoded_alike_whatever_stands_around_it():
    table = frame()
    schema = TableSchema.fit(table)
    whole = schema.encode(table)
    for rows in (slice(3, 4), slice(10, 60), slice(0, 0)):
        for name, array in schema.encode(table.iloc[rows]).items():
            np.testing.assert_array_equal(array, whole[name][rows])


def test_names_of_columns_need_be_no_strings():
    schema = TableSchema.fit(pd.DataFrame({0: [1.0, 2.0], 1: ["a", "b"]}))
    assert schema.names == ("1", "0")
    assert schema.encode(pd.DataFrame({"1": ["b"], "0": [1.5]}))["categorical"].tolist() == [[3]]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([3, 1, 2], "int64"),
        ([3.0, 1.0, 2.0], "float64"),
        ([3.0, 1.0, 2.0], "float32"),
        (["3", "1", "2"], "str"),
        ([3, "1", 2.0], "object"),
        ([3, 1, 2], "Int64"),
        ([3, 1, 2], "category"),
        (["3", "1", "2"], "category"),
    ],
)
def test_a_level_is_the_same_in_every_type(values, dtype):
    column = fit_one(values, dtype, categorical=["x"])
    assert column == CategoricalColumn(name="x", levels=("1", "2", "3"))
    schema = TableSchema(categorical=(column,))
    for other, kind in (([3, 1, 2, 7], "int16"), (["3", "1", "2", "x"], "object")):
        assert codes_of(schema, other, kind) == [4, 2, 3, UNSEEN]
    assert codes_of(schema, [3, None, 2], "Int64") == [4, MISSING, 3]


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object", "str", "category"])
def test_booleans_are_categories_in_every_type(dtype):
    values = ["True", "False"] if dtype == "str" else [True, False]
    assert fit_one(values, dtype) == CategoricalColumn(name="x", levels=("False", "True"))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_unseen_and_rare_categories_have_codes_of_their_own(missing):
    values = ["a"] * 5 + ["b"] * 3 + ["c"] + [missing] * 2
    schema = TableSchema(categorical=(fit_one(values, object, min_frequency=2),))
    assert schema.categorical[0].levels == ("a", "b")
    found = codes_of(schema, ["b", "a", "c", "zebra", missing], object)
    assert found == [3, 2, UNSEEN, UNSEEN, MISSING]


def test_rare_categories_of_all_chunks_together():
    pieces = [pd.DataFrame({"x": ["a", "b"]}), pd.DataFrame({"x": ["a", "c"]})]
    assert TableSchema.fit(pieces, min_frequency=2).categorical[0].levels == ("a",)


def test_the_most_frequent_categories_are_kept_and_ties_broken_by_alphabet():
    values = ["d"] * 3 + ["a"] + ["c"] * 2 + ["b"] * 2
    assert fit_one(values, max_levels=2).levels == ("b", "d")
    assert fit_one(values[::-1], max_levels=2).levels == ("b", "d")
    assert fit_one(values, max_levels=3).levels == ("b", "c", "d")


@pytest.mark.parametrize("argument", ["max_levels", "min_frequency"])
def test_limits_are_positive(argument):
    with pytest.raises(ArgumentError, match=argument):
        fit_one(["a"], **{argument: 0})


def test_one_level_over_very_many_rows():
    column = fit_one(["same"] * 300_000)
    assert column.levels == ("same",)
    assert set(codes_of(TableSchema(categorical=(column,)), ["same"] * 300_000)) == {2}


def test_integers_up_to_those_of_floats_keep_levels_of_their_own():
    values = [2**53 - 1, 2**53, 2**53 + 1]
    column = fit_one(values, "int64", categorical=["x"])
    schema = TableSchema(categorical=(column,))
    assert codes_of(schema, values, "int64") == [2, 3, 4]
    assert codes_of(schema, [str(v) for v in values], "str") == [2, 3, 4]


def test_zero_has_no_sign():
    column = fit_one([0.0, -0.0, 1.0], categorical=["x"])
    assert column.levels == ("0", "1")
    schema = TableSchema(numeric=(NumericColumn(name="x"),))
    assert schema.encode(pd.DataFrame({"x": [-0.0]}))["numeric"].tolist() == [[0.0]]


@pytest.mark.parametrize("value", [0.0, 5.0, 1e9 + 0.1, -1e-300, 1e100])
def test_constant_columns_are_centred_only(value):
    column = fit_one([value] * 30)
    assert column.std == 1.0
    rows = TableSchema(numeric=(column,)).encode(pd.DataFrame({"x": [value]}))
    assert abs(rows["numeric"].item()) <= abs(value) * 1e-15


def test_columns_in_tiny_units_are_not_constant():
    values = np.random.default_rng(0).normal(size=100) * 1e-20
    assert fit_one(values).std == pytest.approx(values.std(), rel=1e-12)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2, None], "Int64"),
        ([1, 2, None], "Float64"),
        ([1, 2, None], "object"),
        ([decimal.Decimal(1), decimal.Decimal(2), None], "object"),
        ([1, 2, None], "int64[pyarrow]"),
        ([1, 2, np.nan], "float32"),
    ],
)
def test_numbers_of_every_type_are_numeric(values, dtype):
    assert fit_one(values, dtype) == NumericColumn(
        name="x", mean=1.5, std=0.5, median=1.5, missing=True
    )


def test_text_that_spells_numbers_is_read_where_training_had_numbers():
    schema = TableSchema(numeric=(NumericColumn(name="x", mean=1.0),))
    rows = pd.DataFrame({"x": pd.Series(["2", None, "1e1", True], dtype=object)})
    np.testing.assert_array_equal(schema.encode(rows)["numeric"][:, 0], [1, np.nan, 9, 0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.inf], r"'x' must hold finite numbers.*'inf'.*rows \[1\]"),
        ([1.0, -np.inf, 2.0], r"rows \[1\]"),
        (pd.to_datetime(["2020-01-01", "2021-01-01"]), "'x'.*found dates.*year"),
        (pd.to_timedelta(["1h", "2h"]), "'x'.*found dates"),
        ([datetime.date(2020, 1, 1)] * 2, "'x' must hold numbers, text.*date 2020-01-01"),
        ([[1], [2]], r"'x' must hold numbers, text.*list \[1\]"),
        (["a", [2]], r"'x' must hold.*list \[2\]"),
        ([{"a": 1}], "'x' must hold.*dict"),
        ([1j, 2j], "'x' must hold real numbers"),
        ([None, None], "'x' must hold at least one value"),
        ([np.nan], "'x' must hold at least one value"),
        ([1e200, -1e200], r"'x' must hold numbers whose squares are finite.*1e\+200"),
    ],
)
def test_columns_that_say_nothing_are_refused(values, message):
    with pytest.raises(ColumnError, match=message):
        fit_one(values)


def test_categories_without_value_and_infinite_codes_are_refused():
    with pytest.raises(ColumnError, match="'x' must hold at least one value"):
        fit_one([None, None], "str")
    with pytest.raises(ColumnError, match=r"'x' must hold.*infinity"):
        fit_one([1.0, np.inf], categorical=["x"])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("far", "many", r"'far' must hold finite numbers.*'many'.*rows \[4\]"),
        ("far", np.inf, r"'far'.*'inf'.*rows \[4\]"),
        ("far", "nan", r"'far'.*'nan'.*rows \[4\]"),
        ("far", 1e300, "'far'.*beyond float32"),
        ("far", pd.Timestamp("2020-01-01"), "'far'"),
        ("city", [1, 2], r"'city'.*list \[1, 2\]"),
        ("city", datetime.date(2020, 1, 1), "'city'.*date"),
    ],
)
def test_rows_that_do_not_fit_are_refused(column, values, message):
    table = frame()
    schema = TableSchema.fit(table)
    rows = table.head(6).astype({column: object})
    rows.at[4, column] = values
    with pytest.raises(ColumnError, match=message):
        schema.encode(rows)


def test_dates_in_a_numeric_column_are_no_numbers():
    schema = TableSchema.fit(frame())
    for dates in (pd.to_datetime("2020-01-01"), pd.to_timedelta("1h")):
        with pytest.raises(ColumnError, match="'far' must hold real numbers"):
            schema.encode(frame().assign(far=dates))


def test_absent_and_repeated_columns_are_named():
    table = frame()
    schema = TableSchema.fit(table)
    with pytest.raises(ColumnError, match=r"'city'.*Did you mean.*citty"):
        schema.encode(table.rename(columns={"city": "citty"}))
    twice = pd.concat([table, table[["city"]]], axis=1)
    with pytest.raises(ColumnError, match="'city' 2 times"):
        schema.encode(twice)
    with pytest.raises(ColumnError, match="found city more than once"):
        TableSchema.fit(twice)
    with pytest.raises(ColumnError, match="found 1 more than once"):
        TableSchema.fit(pd.DataFrame([[1, 2]], columns=pd.Index([1, "1"], dtype=object)))
    assert len(schema.encode(pd.concat([table, table[["city"]].set_axis(["e"], axis=1)], axis=1)))


def test_names_of_codes_are_checked():
    with pytest.raises(UnknownNameError, match=r"categorical.*'zoen'.*zone"):
        TableSchema.fit(frame(), categorical=["zoen"])


@pytest.mark.parametrize("rows", [[], [pd.DataFrame()], [frame(0)], [frame(0), frame(0)]])
def test_nothing_to_learn_from(rows):
    with pytest.raises(ColumnError, match="at least one feature column and one training row"):
        TableSchema.fit(rows)


def test_empty_chunks_change_nothing():
    table = frame()
    assert TableSchema.fit([table, table.iloc[:0]]) == TableSchema.fit(table)
    assert TableSchema.fit([table.iloc[:0], table]) == TableSchema.fit(table)


def test_frames_are_left_as_they_are():
    table = frame()
    before = table.copy()
    TableSchema.fit(table, categorical=["zone"]).encode(table)
    pd.testing.assert_frame_equal(table, before)


def test_spread_is_positive():
    with pytest.raises(ArgumentError, match="std of column 'x'"):
        NumericColumn(name="x", std=0.0)


@pytest.mark.parametrize("categorical", [[], ["zone"]])
def test_schema_survives_as_plain_data(categorical):
    """As in a config file and a checkpoint: dictionaries of JSON, rebuilt by jsonargparse."""
    table = wide_frame(missing=True).assign(zone=range(200))
    schema = TableSchema.fit(table, categorical=categorical)
    plain = json.loads(json.dumps(dataclasses.asdict(schema)))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--schema", type=TableSchema)
    rebuilt = parser.instantiate(parser.parse_object({"schema": plain})).schema
    assert rebuilt == schema
    assert hash(rebuilt) == hash(schema)
    tasks = {"price": NumericTarget()}
    for known in (schema, TableSchema(numeric=schema.numeric)):
        config = json.loads(json.dumps(describe(SharedBottom(tasks, schema=known))))
        assert build(config).schema == known


def test_operations_hold_all_that_encoding_needs():
    rows = pd.DataFrame({"age": [20.0, 40.0, None, 60.0], "city": ["Rome", None, "Oslo", "Oslo"]})
    schema = TableSchema.fit(rows)
    held = schema.operations()
    assert json.loads(json.dumps(held)) == held
    (age,), (city,) = held["numeric"], held["categorical"]
    values = (rows["age"].to_numpy() - age["mean"]) / age["std"]
    special, levels = held["codes"], city["levels"]
    codes = [
        special["first_level"] + levels.index(text) if text in levels else special["missing"]
        for text in rows["city"].tolist()
    ]
    expected = schema.encode(rows)
    np.testing.assert_array_equal(values.astype(np.float32), expected["numeric"][:, 0])
    assert codes == expected["categorical"][:, 0].tolist()
