"""The same table comes out of every kind of file and frame, whole and in chunks."""

import gzip

import numpy as np
import pandas as pd
import polars as pl
import pytest
from toy_tables import wide_frame, write_wide_csv, write_wide_parquet

from mtl_core.errors import ArgumentError, UnreadableFileError
from mtl_tabular.data import ColumnError, TableSource


def texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Values as text, so that types of columns do not matter."""
    return frame.astype(object).where(frame.notna(), None).map(str)


@pytest.fixture
def forms(tmp_path):
    """One table in every form."""
    frame = wide_frame(missing=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(3):
        frame.iloc[i * 70 : (i + 1) * 70].to_parquet(folder / f"part{i}.parquet")
    parts = tmp_path / "parts"
    parts.mkdir()
    for i in range(3):
        frame.iloc[i * 70 : (i + 1) * 70].to_csv(parts / f"part{i}.csv", index=False)
    packed = tmp_path / "packed.csv.gz"
    frame.to_csv(packed, index=False)
    return {
        "csv": write_wide_csv(tmp_path / "a.csv", missing=True),
        "csv.gz": packed,
        "parquet": write_wide_parquet(tmp_path / "a.parquet", missing=True),
        "folder of parquet": folder,
        "folder of csv": str(parts),
        "pandas": frame,
        "polars": pl.from_pandas(frame),
    }


def test_every_form_holds_the_same_rows(forms):
    expected = texts(wide_frame(missing=True))
    for form, table in forms.items():
        source = TableSource(table)
        assert source.columns == list(expected.columns), form
        assert source.rows == len(expected), form
        found = source.frame(source.columns)
        assert found.index.tolist() == list(range(len(expected))), form
        pd.testing.assert_frame_equal(texts(found), expected, check_dtype=False)


def test_chunks_join_to_the_whole(forms):
    for form, table in forms.items():
        source = TableSource(table)
        chunks = list(source.chunks(["kind", "age"], rows=32))
        assert max(map(len, chunks)) <= 32, form
        assert len({tuple(chunk.dtypes) for chunk in chunks}) == 1, form
        whole = source.frame(["kind", "age"])
        pd.testing.assert_frame_equal(texts(pd.concat(chunks)), texts(whole), check_dtype=False)


def test_csv_column_has_one_type_in_all_chunks(tmp_path):
    """What pandas would read as 1 in one piece and as "01" in another."""
    path = tmp_path / "a.csv"
    path.write_text("code,n\n" + "01,1\n" * 4 + "x,2.5\n" * 2)
    chunks = list(TableSource(path).chunks(["code", "n"], rows=2))
    assert [chunk["code"].tolist() for chunk in chunks] == [["01", "01"]] * 2 + [["x", "x"]]
    assert {str(chunk["n"].dtype) for chunk in chunks} == {"float64"}


def test_numpy_columns_are_numbered():
    source = TableSource(np.arange(6.0).reshape(3, 2))
    assert source.columns == ["0", "1"]
    with pytest.raises(ArgumentError, match="rows and columns"):
        TableSource(np.arange(3.0))
    with pytest.raises(ArgumentError, match="a path or a frame"):
        TableSource(3)


def test_held_columns_are_read_once(tmp_path):
    path = write_wide_csv(tmp_path / "a.csv")
    source = TableSource(path)
    source.hold(["age", "click"])
    path.unlink()
    assert list(source.frame(["click"]).columns) == ["click"]
    source.release()
    with pytest.raises(UnreadableFileError):
        source.frame(["click"])


def damaged(tmp_path, kind):
    whole = write_wide_csv(tmp_path / "whole.csv", rows=2000).read_bytes()
    if kind == "absent":
        return tmp_path / "nothing.csv"
    if kind == "empty csv":
        path, content = tmp_path / "a.csv", b""
    elif kind == "ragged csv":
        path, content = tmp_path / "a.csv", b"a,b\n1,2\n1,2,3\n"
    elif kind == "short header":
        path, content = tmp_path / "a.csv", b"a,b\n1,2,3\n4,5,6\n"
    elif kind == "no text":
        path, content = tmp_path / "a.csv", b"a,b\n\xff\xfe\x00\x81,1\n"
    elif kind == "truncated gzip":
        path, content = tmp_path / "a.csv.gz", gzip.compress(whole)[:-2000]
    elif kind == "other format":
        path, content = tmp_path / "a.xlsx", b"PK"
    elif kind == "no parquet":
        path, content = tmp_path / "a.parquet", whole
    else:
        path = write_wide_parquet(tmp_path / "a.parquet", rows=2000)
        content = path.read_bytes()[:-500]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "absent",
        "empty csv",
        "ragged csv",
        "short header",
        "no text",
        "truncated gzip",
        "other format",
        "no parquet",
        "truncated parquet",
    ],
)
def test_damaged_files_are_named(tmp_path, kind):
    path = damaged(tmp_path, kind)

    def read(rows):
        source = TableSource(path)
        return list(source.chunks(source.columns, rows=rows))

    for rows in (0, 64):
        with pytest.raises(UnreadableFileError) as caught:
            read(rows)
        assert str(path) in str(caught.value)
        assert "skip" not in str(caught.value)


def test_parquet_damaged_in_the_middle_is_named(tmp_path):
    path = write_wide_parquet(tmp_path / "a.parquet", rows=5000)
    content = bytearray(path.read_bytes())
    content[2000:6000] = b"\0" * 4000
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.parquet"):
        list(TableSource(path).chunks(TableSource(path).columns))


def test_repeated_columns_and_differing_files_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ColumnError, match="'a' more than once"):
        TableSource(path)
    with pytest.raises(ColumnError, match="unique"):
        TableSource(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "1.csv").write_text("a,b\n1,2\n")
    (folder / "2.csv").write_text("a,c\n1,2\n")
    with pytest.raises(ColumnError, match="differ in b, c"):
        TableSource(folder)


def test_empty_folder_is_named(tmp_path):
    with pytest.raises(UnreadableFileError, match="no CSV and no Parquet"):
        TableSource(tmp_path)


def test_fingerprint_follows_the_content(tmp_path):
    path = write_wide_csv(tmp_path / "a.csv")
    first = TableSource(path).fingerprint()
    assert TableSource(path).fingerprint() == first
    write_wide_csv(path, rows=201)
    assert TableSource(path).fingerprint() != first
    frame = wide_frame()
    changed = frame.assign(age=frame["age"] + 1)
    prints = [TableSource(f).fingerprint() for f in (frame, frame.copy(), changed)]
    assert prints[0] == prints[1] != prints[2]
