"""Tables from CSV and Parquet files, in pieces of bounded size, without pandas."""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np

from mtl_core.errors import MTLError, UnknownNameError, UnreadableFileError

Column: TypeAlias = Sequence[Any]
"""Values of one column: numbers, booleans, text, None where missing; or a numpy array."""

CSV_SUFFIXES = (".csv", ".csv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = CSV_SUFFIXES + PARQUET_SUFFIXES
"""Endings, in lower case, of the files taken for tables."""

MISSING_TEXTS = frozenset(
    {
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
        "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
    }
)  # fmt: skip
"""Cells of a CSV file that hold no value, those of pandas' reader."""

_BOOLEANS = {
    "True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False,
}  # fmt: skip


class TableError(MTLError, ValueError):
    """A table lacks a column, or a column holds what it must not hold."""


class UnreadableTableError(UnreadableFileError):
    """A file is no table, or a damaged one."""

    def __init__(self, path: Path | str, reason: object) -> None:
        super().__init__(path, reason)
        self.args = (f"cannot read the table {path}: {str(reason).rstrip('.')}.",)


def require(needed: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuse a table that lacks a column or has one twice.

    Raises:
        TableError: names the column and the nearest ones that are there.
    """
    for name in needed:
        if name not in known:
            near = UnknownNameError("column", name, known)
            raise TableError(f"{where} must have every column that the model reads. {near}")
        if list(known).count(name) > 1:
            raise TableError(f"column names of {where} must be unique, found {name!r} twice.")


def is_table(path: Path | str) -> bool:
    """Whether a file's name ends like that of a table."""
    return str(path).lower().endswith(TABLE_SUFFIXES)


def read_table(
    path: Path | str, columns: Sequence[str], rows: int = 4096
) -> Iterator[dict[str, Column]]:
    """The chosen columns of a file, in pieces of at most `rows` rows.

    A column of a CSV file holds numbers, booleans or text, whichever all of its cells allow, so
    that it means the same as in a reader that sees it as a whole.

    Args:
        path: ``.csv``, ``.csv.gz`` (commas, a header) or ``.parquet``.
        columns: names of the columns to read.
        rows: at most so many a piece.

    Raises:
        UnreadableTableError: the file is absent, empty, damaged or of another kind.
        TableError: a column is absent or twice there.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableTableError(path, "there is no such file")
    if path.name.lower().endswith(CSV_SUFFIXES):
        return _csv_pieces(path, columns, rows)
    if path.name.lower().endswith(PARQUET_SUFFIXES):
        return _parquet_pieces(path, columns, rows)
    raise UnreadableTableError(path, f"its name must end with {', '.join(TABLE_SUFFIXES)}")


def _open_text(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _csv_rows(path: Path) -> Iterator[list[str]]:
    """Header, then rows of its length; blank lines are passed over, as pandas does."""
    try:
        with _open_text(path) as file:
            yield from _lines(path, file)
    except UnreadableTableError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise UnreadableTableError(path, error) from error


def _lines(path: Path, file: TextIO) -> Iterator[list[str]]:
    header: list[str] | None = None
    reader = csv.reader(file)
    for cells in reader:
        if not cells:
            continue
        if header is None:
            header = [name or f"Unnamed: {i}" for i, name in enumerate(cells)]
            yield header
            continue
        if len(cells) > len(header):
            found = f"line {reader.line_num} has {len(cells)} cells"
            raise UnreadableTableError(path, f"the header has {len(header)}, {found}")
        yield cells + [""] * (len(header) - len(cells))
    if header is None:
        raise UnreadableTableError(path, "it is empty")


def _csv_pieces(path: Path, columns: Sequence[str], rows: int) -> Iterator[dict[str, Column]]:
    lines = _csv_rows(path)
    header = next(lines)
    require(columns, header, str(path))
    places = [header.index(name) for name in columns]
    kinds = _kinds(lines, places)
    lines = _csv_rows(path)
    next(lines)
    piece: list[list[str]] = []
    for cells in lines:
        piece.append(cells)
        if len(piece) == rows:
            yield _typed(piece, columns, places, kinds)
            piece = []
    if piece:
        yield _typed(piece, columns, places, kinds)


def _kinds(lines: Iterator[list[str]], places: Sequence[int]) -> list[str]:
    """``number``, ``boolean`` or ``text`` a column, by all of its cells."""
    numbers, booleans = set(places), set(places)
    for cells in lines:
        for place in places:
            cell = cells[place]
            if cell in MISSING_TEXTS:
                continue
            if place in booleans and cell not in _BOOLEANS:
                booleans.discard(place)
            if place in numbers and as_number(cell) is None:
                numbers.discard(place)
    return [
        "number" if place in numbers else "boolean" if place in booleans else "text"
        for place in places
    ]


def as_number(text: str) -> float | int | None:
    """The number that a text spells, whole ones as integers; None where it spells none."""
    if "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _typed(
    piece: list[list[str]], columns: Sequence[str], places: Sequence[int], kinds: Sequence[str]
) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for name, place, kind in zip(columns, places, kinds, strict=True):
        cells = [row[place] for row in piece]
        if kind == "number":
            found[name] = [None if c in MISSING_TEXTS else as_number(c) for c in cells]
        elif kind == "boolean":
            found[name] = [_BOOLEANS.get(c) for c in cells]
        else:
            found[name] = [None if c in MISSING_TEXTS else c for c in cells]
    return found


def _parquet_pieces(path: Path, columns: Sequence[str], rows: int) -> Iterator[dict[str, Column]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UnreadableTableError(
            path,
            "Parquet files need the package pyarrow, which is not installed: pip install pyarrow, "
            "or give a CSV file",
        ) from None
    try:
        file = pq.ParquetFile(path)
        known = list(file.schema_arrow.names)
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise UnreadableTableError(path, error) from error
    require(columns, known, str(path))
    batches = file.iter_batches(rows, columns=list(columns), use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except (OSError, EOFError, ValueError, pa.ArrowException) as error:
            raise UnreadableTableError(path, error) from error
        if batch is None:
            return
        if batch.num_rows:
            yield {name: _arrow_values(batch.column(name), name, path) for name in columns}


def _arrow_values(column: Any, name: str, path: Path) -> Column:
    import pyarrow.types as kinds

    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if kinds.is_floating(kind):
        values: Column = column.to_numpy(zero_copy_only=False)
        return values
    plain = (
        kinds.is_integer, kinds.is_boolean, kinds.is_string, kinds.is_large_string, kinds.is_null,
        kinds.is_decimal,
    )  # fmt: skip
    if not any(test(kind) for test in plain):
        raise TableError(
            f"column {name!r} of {path} must hold numbers, text or booleans, found {kind}."
        )
    listed: list[Any] = column.to_pylist()
    return (
        [float(v) if v is not None else None for v in listed] if kinds.is_decimal(kind) else listed
    )


def empty(value: object) -> bool:
    """Whether a value counts as missing."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))
