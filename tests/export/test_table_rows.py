"""Rows are encoded as `TableSchema.encode` does, from files, columns and mappings alike."""

import json

import numpy as np
import pandas as pd
import pytest

from export.manifest import FolderError
from export.table_files import TableError
from export.table_rows import TablePipeline
from mtl_tabular.data import TableSchema

FRAME = pd.DataFrame(
    {
        "age": [20.0, 40.0, np.nan, 65.5, 31.0, 18.0],
        "visits": [1, 2, 3, 4, 5, 1000],
        "city": ["Rome", "Oslo", None, "Rome", "Lima", "007"],
        "code": [1, 2, 2, 3, 1, 1],
        "rate": [0.1, 0.25, 0.1, np.nan, 3.0, 0.1],
        "member": [True, False, None, True, False, True],
    }
)
SCHEMA = TableSchema.fit(FRAME, categorical=["code", "rate"])
PIPELINE = TablePipeline(SCHEMA.operations())


def joined(pieces):
    pieces = list(pieces)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_files_are_encoded_as_in_training(tmp_path, size):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    expected = SCHEMA.encode(pd.read_csv(tmp_path / "t.csv"))
    assert_same(joined(PIPELINE.pieces(tmp_path / "t.csv", size)), expected)
    FRAME.to_parquet(tmp_path / "t.parquet")
    expected = SCHEMA.encode(pd.read_parquet(tmp_path / "t.parquet"))
    assert_same(joined(PIPELINE.pieces(str(tmp_path / "t.parquet"), size)), expected)


def test_columns_and_mappings_are_encoded_as_in_training():
    expected = SCHEMA.encode(FRAME)
    columns = {name: FRAME[name].tolist() for name in reversed(FRAME.columns)} | {"more": [0] * 6}
    assert_same(joined(PIPELINE.pieces(columns)), expected)
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    assert_same(joined(PIPELINE.pieces(rows, 4)), expected)
    arrays = {name: FRAME[name].to_numpy() for name in FRAME.columns}
    assert_same(joined(PIPELINE.pieces(arrays)), expected)


def random_cell(rng):
    pool = ["1", "2.0", "0.5", "Rome", "True", "false", "", "NA", "nan", "007", "1e2", " x", "None"]
    return pool[rng.integers(len(pool))]


def test_random_files_are_encoded_as_in_training(tmp_path):
    rng = np.random.default_rng(0)
    levels = ["1", "2", "0.5", "Rome", "True", "False", "007", "100", " x"]
    document = {
        "kind": "table", "numeric": [], "categorical": [{"name": "c", "levels": levels}],
    }  # fmt: skip
    (city,) = SCHEMA.categorical[:1]
    schema = TableSchema(categorical=(type(city)(name="c", levels=tuple(levels)),))
    path = tmp_path / "t.csv"
    for _ in range(60):
        # Few kinds of cells in a file, so that columns of numbers and of booleans occur too.
        pool = [random_cell(rng) for _ in range(rng.integers(1, 4))]
        cells = [pool[rng.integers(len(pool))] for _ in range(6)]
        path.write_text("c,d\n" + "".join(f"{cell},0\n" for cell in cells))
        expected = schema.encode(pd.read_csv(path))
        found = joined(TablePipeline(document).pieces(path))
        assert_same(found, expected)


def test_missing_and_unseen_have_codes_of_their_own():
    values = {
        **{n: FRAME[n].tolist() for n in FRAME.columns},
        "city": ["Bonn", None] + ["Oslo"] * 4,
    }
    codes = joined(PIPELINE.pieces(values))["categorical"]
    place = [c.name for c in SCHEMA.categorical].index("city")
    assert codes[:3, place].tolist() == [0, 1, 2 + SCHEMA.categorical[place].levels.index("Oslo")]


def test_trees_take_one_array_with_categories_first():
    document = {**SCHEMA.operations(), "kind": "trees", "task_column": "", "tasks": ["a"]}
    found = joined(TablePipeline(document).pieces({n: FRAME[n].tolist() for n in FRAME.columns}))
    plain = SCHEMA.encode(FRAME)
    codes = np.where(plain["categorical"] == 1, np.nan, plain["categorical"])
    expected = np.concatenate([codes, plain["numeric"]], 1).astype(np.float32)
    assert_same(found, {"features": expected})


@pytest.mark.parametrize(("column", "value", "message"), [
    ("age", "old", "numeric column 'age' of the table must hold finite numbers .* 'old' in row 1"),
    ("age", float("inf"), "found inf in row 1"),
    ("age", [1], r"found \[1\] in row 1"),
    ("age", "1_0", "found '1_0' in row 1"),
    ("visits", 1e300, "must hold values near those of training"),
    ("city", ["x"], "column 'city' of the table must hold numbers, text or booleans"),
    ("code", float("inf"), "found inf in row 1"),
    ("city", pd.Timestamp("2020-01-01"), "must hold numbers, text or booleans"),
])  # fmt: skip
def test_values_that_do_not_fit_are_refused_with_their_row(column, value, message):
    columns = {name: FRAME[name].tolist() for name in FRAME.columns}
    columns[column][1] = value
    for size in (1, 100):
        with pytest.raises(TableError, match=message):
            list(PIPELINE.pieces(columns, size))


def test_text_that_spells_a_number_and_booleans_count_as_numbers():
    columns = {name: FRAME[name].tolist() for name in FRAME.columns}
    plain = joined(PIPELINE.pieces({**columns, "age": [20, 40, None, 65.5, 1, 0]}))
    texts = joined(PIPELINE.pieces({**columns, "age": ["20", " 40", None, "65.50", True, False]}))
    assert_same(texts, plain)


def test_absent_columns_are_named_with_the_nearest():
    columns = {name: FRAME[name].tolist() for name in FRAME.columns if name != "visits"}
    with pytest.raises(
        TableError, match=r"every column that the model reads.*Did you mean visit\?"
    ):
        list(PIPELINE.pieces({**columns, "visit": [0] * 6}))
    full = dict.fromkeys(FRAME.columns, 1)
    with pytest.raises(TableError, match="row 1 of the table must have every column"):
        list(PIPELINE.pieces([full, {"age": 1}]))
    with pytest.raises(TableError, match=r"must be equally long, found \[5, 6\]"):
        list(PIPELINE.pieces({**columns, "visits": [0] * 5}))


def test_no_rows_give_no_pieces():
    assert list(PIPELINE.pieces({name: [] for name in FRAME.columns})) == []
    assert list(PIPELINE.pieces([])) == []


@pytest.mark.parametrize("damage", [
    {"numeric": [{"name": "x"}]}, {"numeric": [{"name": "x", "mean": 0, "std": 0}]},
    {"categorical": 3}, {"kind": None, "codes": {"unseen": "a"}},
])  # fmt: skip
def test_damaged_descriptions_are_refused(damage):
    document = {**json.loads(json.dumps(SCHEMA.operations())), **damage}
    with pytest.raises(FolderError, match=r"x.json"):
        TablePipeline(document, "x.json")
