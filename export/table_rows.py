"""Rows of tables as graphs take them: the columns of ``preprocess.json``, found by their names."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from export.manifest import FolderError
from export.table_files import (
    Column,
    TableError,
    as_number,
    empty,
    read_table,
    require,
)

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = str | Path | Mapping[str, Column] | Sequence[Mapping[str, Any]]
"""A CSV or Parquet file, columns by name, or rows as mappings from column to value."""

_LARGEST = float(np.finfo(np.float32).max)
_CODES = {"unseen": 0, "missing": 1, "first_level": 2}


class TablePipeline:
    """The columns of a ``preprocess.json`` of kind ``table`` or ``trees``.

    Numeric columns are standardised in float64, NaN where a value is missing. Categorical ones give
    a code: one for missing values, one for categories that training did not have, the others in the
    order of ``levels``. Trees take both in one array ``features``: categories first, NaN where
    missing.

    Args:
        document: the JSON data.
        where: the file, for messages.

    Raises:
        FolderError: the document lacks an entry, or a spread is not positive.
    """

    def __init__(self, document: Mapping[str, Any], where: str = "preprocess.json") -> None:
        try:
            self.kind = str(document["kind"])
            self.numeric = [
                (str(c["name"]), float(c["mean"]), float(c["std"])) for c in document["numeric"]
            ]
            self.categorical = [
                (str(c["name"]), [str(level) for level in c["levels"]])
                for c in document["categorical"]
            ]
            codes = {**_CODES, **document.get("codes", {})}
            self.unseen, self.missing, first = (int(codes[name]) for name in _CODES)
        except (KeyError, TypeError, ValueError) as error:
            raise FolderError(
                f"{where} must describe the columns of a table: {error!r}."
            ) from error
        for name, _, std in self.numeric:
            if not std > 0:
                raise FolderError(f"std of column {name!r} in {where} must be positive: {std}.")
        self._tables = [
            {level: first + i for i, level in enumerate(levels)} for _, levels in self.categorical
        ]

    @property
    def columns(self) -> list[str]:
        """Names of all columns that are read."""
        return [*(name for name, *_ in self.categorical), *(name for name, *_ in self.numeric)]

    def pieces(self, rows: Rows, size: int = 4096) -> Iterator[dict[str, Array]]:
        """What the graph takes, piece by piece.

        Args:
            rows: see `Rows`. Further columns are not looked at.
            size: at most so many rows a piece.

        Raises:
            TableError: a column is absent or twice there, or holds what it must not hold.
            UnreadableTableError: the file is absent, empty, damaged or of another kind.
        """
        if isinstance(rows, str | Path):
            first = 0
            for piece in read_table(rows, self.columns, size):
                yield self.encode(piece, first=first, where=str(rows))
                first += len(next(iter(piece.values())))
            return
        table = rows if isinstance(rows, Mapping) else _transposed(rows, self.columns)
        require(self.columns, list(table), "the table")
        lengths = {len(table[name]) for name in self.columns}
        if len(lengths) > 1:
            raise TableError(f"columns of a table must be equally long, found {sorted(lengths)}.")
        for start in range(0, max(lengths, default=0), size):
            part = {name: table[name][start : start + size] for name in self.columns}
            yield self.encode(part, first=start)

    def encode(
        self, table: Mapping[str, Column], *, first: int = 0, where: str = "the table"
    ) -> dict[str, Array]:
        """What the graph takes of N rows.

        Args:
            table: all of `columns`, equally long.
            first: number of the first row, for messages.
            where: the file, for messages.

        Returns:
            ``numeric`` (N, d) float32 and ``categorical`` (N, d) int64, whichever the model has; or
            ``features`` (N, F) float32 for trees.
        """
        size = len(next(iter(table.values())))
        numbers = np.empty((size, len(self.numeric)), np.float32)
        for i, (name, mean, std) in enumerate(self.numeric):
            values = (_numbers(table[name], name, first, where) - mean) / std
            if np.abs(values).max(initial=0.0, where=~np.isnan(values)) > _LARGEST:
                raise TableError(
                    f"numeric column {name!r} of {where} must hold values near those of training "
                    f"(mean {mean:g}, spread {std:g}), found one beyond float32."
                )
            numbers[:, i] = values
        codes = np.empty((size, len(self.categorical)), np.int64)
        for i, (name, _) in enumerate(self.categorical):
            codes[:, i] = self._codes(table[name], self._tables[i], name, first, where)
        if self.kind == "trees":
            held = np.where(codes == self.missing, np.float32("nan"), codes.astype(np.float32))
            return {"features": np.concatenate([held, numbers], 1)}
        arrays = {"numeric": numbers} if self.numeric else {}
        return {**arrays, "categorical": codes} if self.categorical else arrays

    def _codes(
        self, values: Column, table: Mapping[str, int], name: str, first: int, where: str
    ) -> list[int]:
        known: dict[tuple[type, Any], int] = {}
        found = []
        for row, value in enumerate(values):
            key = (value.__class__, value)
            code = known.get(key) if value.__hash__ else None
            if code is None:
                if empty(value):
                    code = self.missing
                else:
                    text = _level(value, name, first + row, where)
                    code = known[key] = table.get(text, self.unseen)
            found.append(code)
        return found


def _transposed(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Column]:
    for row, held in enumerate(rows):
        require(columns, list(held), f"row {row} of the table")
    return {name: [held[name] for held in rows] for name in columns}


def _numbers(values: Column, name: str, first: int, where: str) -> NDArray[np.float64]:
    """A column as numbers (N,), NaN where missing; text that spells a number counts."""
    try:
        numbers = np.array([np.nan if v is None else v for v in values], np.float64)
        plain = numbers.ndim == 1 and not any(isinstance(v, str) for v in values)
    except (TypeError, ValueError):
        plain = False
    if not plain:
        numbers = np.array([_number(v, name, first + i, where) for i, v in enumerate(values)])
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        row = int(infinite[0])
        raise _bad_number(name, values[row], first + row, where)
    return numbers


def _number(value: Any, name: str, row: int, where: str) -> float:
    if empty(value):
        return np.nan
    found = as_number(value) if isinstance(value, str) else value
    if not isinstance(found, int | float | np.integer | np.floating | np.bool_):
        raise _bad_number(name, value, row, where)
    return float(found)


def _bad_number(name: str, value: Any, row: int, where: str) -> TableError:
    return TableError(
        f"numeric column {name!r} of {where} must hold finite numbers or missing values, found "
        f"{value!r} in row {row}."
    )


def _level(value: Any, name: str, row: int, where: str) -> str:
    """A category as canonical text: whole numbers lose their decimal point."""
    if isinstance(value, float | np.floating) and np.isfinite(value):
        return str(int(value)) if value == int(value) else str(value)
    if isinstance(value, str | bool | int | np.integer | np.bool_):
        return str(value)
    raise TableError(
        f"column {name!r} of {where} must hold numbers, text or booleans, found {value!r} in row "
        f"{row}."
    )
