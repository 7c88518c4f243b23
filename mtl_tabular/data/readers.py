"""Tables from files and frames, whole or in chunks, as pandas frames indexed by row number."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mtl_core.errors import ArgumentError, UnknownNameError, UnreadableFileError
from mtl_tabular.data.columns import ColumnError

Table: TypeAlias = str | Path | pd.DataFrame
"""A CSV or Parquet file, a folder of either, or a frame (pandas, polars, anything Arrow reads)."""

CHUNK_ROWS = 1 << 16
"""Rows that are held at once where a table is read in chunks."""

_CSV = (".csv", ".csv.gz")
_PARQUET = (".parquet", ".pq")
_BROKEN = (OSError, EOFError, zlib.error, ValueError, pa.ArrowException)


class UnreadableTableError(UnreadableFileError):
    """A file of a table cannot be read: absent, empty, truncated, corrupt or of another format."""

    def __init__(self, path: Path | str, reason: object) -> None:
        super().__init__(path, reason)
        self.args = (f"cannot read the table {path}: {reason}. Repair or replace the file.",)


class TableSource:
    """A table that can be read again and again.

    Args:
        table: what to read, see `Table`. A folder's files are read in the order of their names and
            must have the same columns. CSV files are separated by commas and begin with a header.

    Raises:
        UnreadableTableError: a file is absent, empty or no table.
        ColumnError: a column name occurs twice, or files of a folder differ in their columns.
        ArgumentError: `table` is no table.
    """

    def __init__(self, table: Table) -> None:
        self.files: list[Path] = []
        self._whole: pd.DataFrame | None = None
        self._held: pd.DataFrame | None = None
        self._types: dict[str, Any] | None = None
        self._rows: int | None = None
        if isinstance(table, str | Path):
            self.files = _files(Path(table))
            self.columns = _columns(self.files)
        else:
            self._whole = _as_frame(table)
            self.columns = [str(name) for name in self._whole.columns]
            self._rows = len(self._whole)
        self.label = str(table) if self.files else "the frame"
        repeated = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if repeated:
            raise ColumnError(
                f"column names must be unique, found {', '.join(map(repr, repeated))} more than "
                f"once in {self.label}."
            )

    def require(self, names: Sequence[str], purpose: str) -> None:
        """Refuse names that are no columns.

        Raises:
            ColumnError: names the column, what it is wanted for and the nearest names there are.
        """
        for name in names:
            if name not in self.columns:
                near = UnknownNameError(purpose, name, self.columns)
                raise ColumnError(f"{near} Table: {self.label}.")

    @property
    def rows(self) -> int:
        """Number of rows. Counting those of CSV files reads them once."""
        if self._rows is None:
            if self._is_csv():
                self._scan()
            else:
                self._rows = sum(_open_parquet(f).metadata.num_rows for f in self.files)
        assert self._rows is not None
        return self._rows

    def hold(self, columns: Sequence[str]) -> None:
        """Read these columns of files once for all further calls of `frame`, until `release`."""
        if self._held is None and self.files:
            self._held = self.frame(list(dict.fromkeys(columns)))

    def release(self) -> None:
        """Let go of what `hold` keeps."""
        self._held = None

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """The chosen columns of all rows."""
        if self._held is not None and set(columns) <= set(self._held.columns):
            return self._held[list(columns)]
        chunks = list(self.chunks(columns, rows=0))
        return chunks[0] if len(chunks) == 1 else pd.concat(chunks)

    def chunks(self, columns: Sequence[str], *, rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
        """The chosen columns in pieces of at most `rows` rows, in order; 0 is a whole file.

        A column has the same type in every piece. The index is the row's number in the table.
        """
        if self._whole is not None:
            for start in range(0, len(self._whole), rows or max(len(self._whole), 1)):
                yield self._whole.iloc[start : start + rows if rows else None][list(columns)]
            if not len(self._whole):
                yield self._whole[list(columns)]
            return
        first = 0
        for file in self.files:
            read = self._csv_chunks if self._is_csv() else _parquet_chunks
            for chunk in read(file, columns, rows):
                chunk.index = pd.RangeIndex(first, first + len(chunk))
                first += len(chunk)
                yield chunk[list(columns)]

    def fingerprint(self) -> list[Any]:
        """What changes when the content does: names, sizes and times of files, hashes of frames."""
        if self._whole is not None:
            hashes = pd.util.hash_pandas_object(self._whole, index=False).to_numpy()
            return [self.columns, zlib.crc32(hashes.tobytes()), len(hashes)]
        stats = [(file, file.stat()) for file in self.files]
        return [[str(f.resolve()), s.st_size, s.st_mtime_ns] for f, s in stats]

    def _is_csv(self) -> bool:
        return self.files[0].name.lower().endswith(_CSV)

    def _csv_chunks(self, file: Path, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
        if not rows and len(self.files) == 1:
            # All columns, because pandas accepts rows with too many fields where it need not.
            yield _read_csv(file, low_memory=False)[list(columns)]
            return
        types = {name: kind for name, kind in self._scan().items() if name in columns}
        yield from _csv_pieces(file, rows or CHUNK_ROWS, usecols=list(columns), dtype=types)

    def _scan(self) -> dict[str, Any]:
        """Types of the columns of all rows together, as one reading of everything would find."""
        if self._types is None:
            kinds: dict[str, set[str]] = {name: set() for name in self.columns}
            self._rows = 0
            for file in self.files:
                for chunk in _csv_pieces(file, CHUNK_ROWS):
                    self._rows += len(chunk)
                    for name in self.columns:
                        kinds[name].add(_kind(chunk[name]))
            self._types = {name: _common_type(found) for name, found in kinds.items()}
        return self._types


def _as_frame(table: Any) -> pd.DataFrame:
    if isinstance(table, np.ndarray):
        if table.ndim != 2:
            raise ArgumentError("table", "have rows and columns", f"an array of {table.ndim} axes")
        frame = pd.DataFrame(table)
    elif isinstance(table, pd.DataFrame):
        frame = table
    else:
        try:
            frame = pa.table(table).to_pandas(date_as_object=False)
        except (TypeError, ValueError) as error:
            kind = type(table).__name__
            raise ArgumentError("table", "be a path or a frame", kind) from error
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    return frame.set_axis(pd.RangeIndex(len(frame)), axis=0)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UnreadableTableError(path, "there is no such file or folder")
    if not path.is_dir():
        if not path.name.lower().endswith((*_CSV, *_PARQUET)):
            raise UnreadableTableError(path, f"its name must end with {', '.join(_CSV + _PARQUET)}")
        return [path]
    for endings in (_PARQUET, _CSV):
        files = sorted(f for f in path.rglob("*") if f.name.lower().endswith(endings))
        if files:
            return files
    raise UnreadableTableError(path, "the folder holds no CSV and no Parquet file")


def _columns(files: Sequence[Path]) -> list[str]:
    columns: list[list[str]] = []
    for file in files:
        if file.name.lower().endswith(_CSV):
            # With a second row, which must not be longer: pandas would take it for one with labels.
            header = _read_csv(file, header=None, nrows=2, dtype=str).iloc[0]
            # A nameless first column is the index that pandas writes; it reads it by this name.
            names = [
                f"Unnamed: {i}" if pd.isna(name) else str(name) for i, name in enumerate(header)
            ]
        else:
            names = list(_open_parquet(file).schema_arrow.names)
        if columns and set(names) != set(columns[0]):
            other = sorted(set(names) ^ set(columns[0]))
            raise ColumnError(
                f"files of one table must have the same columns: {file} and {files[0]} differ in "
                f"{', '.join(other[:5])}."
            )
        columns.append(names)
    return columns[0]


def _read_csv(file: Path, **options: Any) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pd.read_csv(file, **options)
    except _BROKEN as error:
        raise UnreadableTableError(file, error) from error
    return frame


def _csv_pieces(file: Path, rows: int, **options: Any) -> Iterator[pd.DataFrame]:
    try:
        with pd.read_csv(file, chunksize=rows, low_memory=False, **options) as reader:
            yield from reader
    except _BROKEN as error:
        raise UnreadableTableError(file, error) from error


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except _BROKEN as error:
        raise UnreadableTableError(file, error) from error


def _parquet_chunks(file: Path, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
    parquet = _open_parquet(file)
    size = rows or max(parquet.metadata.num_rows, 1)
    empty = True
    batches = parquet.iter_batches(size, columns=list(columns), use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except _BROKEN as error:
            raise UnreadableTableError(file, error) from error
        if batch is None:
            break
        empty = False
        yield batch.to_pandas(date_as_object=False)
    if empty:
        yield parquet.schema_arrow.empty_table().to_pandas(date_as_object=False)


def _kind(values: "pd.Series[Any]") -> str:
    """``b``, ``i``, ``f`` or ``t`` for a column of one piece; empty where it has no value."""
    if values.isna().all():
        return ""
    if pd.api.types.is_bool_dtype(values.dtype):
        return "b"
    if pd.api.types.is_integer_dtype(values.dtype):
        return "i"
    if pd.api.types.is_float_dtype(values.dtype):
        return "f"
    return "b" if pd.api.types.infer_dtype(values, skipna=True) == "boolean" else "t"


def _common_type(kinds: set[str]) -> Any:
    found = kinds - {""}
    if not found:
        return "float64"
    if found == {"b"}:
        return "boolean"
    if found <= {"i", "f"}:
        return "int64" if kinds == {"i"} else "float64"
    return "str"
