"""Tables are read without pandas as pandas would read them, and damaged ones are named."""

import builtins
import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from export.table_files import (
    MISSING_TEXTS,
    TableError,
    UnreadableTableError,
    as_number,
    empty,
    is_table,
    read_table,
    require,
)


def read(path, columns, rows=4096):
    """All pieces in one."""
    found = {name: [] for name in columns}
    for piece in read_table(path, columns, rows):
        for name in columns:
            found[name] += list(piece[name])
    return found


def write(path, text):
    path.write_text(text)
    return path


def test_types_are_those_that_all_cells_of_a_column_allow(tmp_path):
    text = (
        "whole,real,mixed,flag,gone,word\n007,1,01,True,NA,a\n 3 ,,x,FALSE,,b\n-2,2.5e1,3,,nan,\n"
    )
    path = write(tmp_path / "t.csv", text)
    expected = {
        "whole": [7, 3, -2],
        "real": [1, None, 25.0],
        "mixed": ["01", "x", "3"],
        "flag": [True, False, None],
        "gone": [None, None, None],
        "word": ["a", "b", None],
    }
    for rows in (1, 2, 4096):
        assert read(path, list(expected), rows) == expected


def test_pandas_takes_the_same_texts_for_missing(tmp_path):
    for text in sorted(MISSING_TEXTS):
        path = write(tmp_path / "t.csv", f"a,b\n{text},1\nword,2\n")
        assert pd.read_csv(path)["a"].isna().tolist() == [True, False], text
        assert read(path, ["a"]) == {"a": [None, "word"]}
    for text in ("none", "N.A.", "-", "?", " "):
        path = write(tmp_path / "t.csv", f"a,b\n{text},1\nword,2\n")
        assert not pd.read_csv(path)["a"].isna().any(), text
        assert read(path, ["a"]) == {"a": [text, "word"]}


def test_quotes_blank_lines_short_rows_a_byte_order_mark_and_nameless_columns(tmp_path):
    text = '\ufeffa,"b, c",\r\n"x\ny","say ""hi""",1\r\n\r\nz\r\n'
    path = write(tmp_path / "t.csv", text)
    columns = ["a", "b, c", "Unnamed: 2"]
    assert read(path, columns) == {
        "a": ["x\ny", "z"], "b, c": ['say "hi"', None], "Unnamed: 2": [1, None],
    }  # fmt: skip
    assert [str(c) for c in pd.read_csv(path).columns] == columns


def test_compressed_files(tmp_path):
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("a\n1\n2\n")
    assert read(tmp_path / "t.csv.gz", ["a"]) == {"a": [1, 2]}


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", b"", "it is empty"),
    ("a.csv", b"a,b\n1,2\n1,2,3\n", "the header has 2, line 3 has 3 cells"),
    ("a.csv", b"a,b\n\xff\xfe,2\n", "can't decode byte"),
    ("a.csv.gz", b"no gzip", "Not a gzipped file"),
    ("a.parquet", b"PAR1 but cut", "cannot read the table"),
    ("a.txt", b"a,b\n", "its name must end with .csv"),
])  # fmt: skip
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableTableError, match=message) as caught:
        read(tmp_path / name, ["a"])
    assert name in str(caught.value)


def test_absent_files_and_columns():
    with pytest.raises(UnreadableTableError, match="there is no such file"):
        read_table("absent.csv", ["a"])
    require(["a"], ["b", "a"], "t")
    with pytest.raises(TableError, match=r"t must have every column.*Did you mean income\?"):
        require(["incom"], ["income", "age"], "t")
    with pytest.raises(TableError, match="column names of t must be unique, found 'a' twice"):
        require(["a"], ["a", "a"], "t")


def test_columns_are_found_by_name_in_files(tmp_path):
    path = write(tmp_path / "t.csv", "b,a,a\n1,2,3\n")
    assert read(path, ["b"]) == {"b": [1]}
    with pytest.raises(TableError, match=r"t.csv must be unique"):
        read(path, ["a"])
    with pytest.raises(TableError, match=r"t.csv must have every column that the model reads"):
        read(path, ["c"])


def test_parquet(tmp_path):
    frame = pd.DataFrame({
        "whole": pd.array([1, None, 3], "Int64"), "real": [0.5, None, 2.0],
        "flag": pd.array([True, None, False], "boolean"), "word": ["a", None, "b"],
        "level": pd.Categorical(["x", "y", None]), "small": np.float32([0.1, 2, 3]),
    })  # fmt: skip
    path = tmp_path / "t.parquet"
    frame.to_parquet(path, row_group_size=2)
    found = read(path, list(frame.columns), rows=2)
    assert found["whole"] == [1, None, 3]
    assert found["flag"] == [True, None, False]
    assert found["word"] == ["a", None, "b"]
    assert found["level"] == ["x", "y", None]
    assert [empty(v) for v in found["real"]] == [False, True, False]
    assert str(found["small"][0]) == "0.1"
    with pytest.raises(TableError, match="Did you mean word"):
        read(path, ["wrod"])
    pq.write_table(pa.table({"day": pd.to_datetime(["2020-01-01"])}), path)
    with pytest.raises(TableError, match=r"'day' of .* must hold numbers, text or booleans, found"):
        read(path, ["day"])


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **options)

    (tmp_path / "t.parquet").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UnreadableTableError, match=r"pyarrow, which is not installed.* CSV file"):
        read(tmp_path / "t.parquet", ["a"])


def test_numbers_and_names():
    assert [as_number(t) for t in ("1", "-2.50", "1e3", "x", "1_0", "", "0x1")] == [
        1, -2.5, 1000.0, None, None, None, None,
    ]  # fmt: skip
    assert [is_table(n) for n in ("a.CSV", "a.csv.gz", "a.parquet", "a.png")] == [True] * 3 + [
        False
    ]
    assert [empty(v) for v in (None, np.nan, np.float32("nan"), 0, "", False)] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
