"""Feature columns as XGBoost takes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import NDArray

from mtl_tabular.data.rows import TableRows
from mtl_tabular.data.schema import MISSING, TableSchema

PAGE_BYTES = 1 << 26
"""Of features that are read at once where they lie in a file."""


class Pages(xgb.DataIter):
    """Rows in a file, a page at a time, for XGBoost's external memory.

    Args:
        values: (n, F) float32, mapped from a file. XGBoost's own pages lie beside that file for as
            long as the matrix lives.
        kinds: ``q`` or ``c`` a feature.
    """

    def __init__(
        self, values: "np.memmap[Any, np.dtype[np.float32]]", kinds: Sequence[str]
    ) -> None:
        self.values, self.kinds = values, list(kinds)
        self.rows = max(1, PAGE_BYTES // max(1, 4 * values.shape[1]))
        self.place = 0
        super().__init__(cache_prefix=f"{values.filename}.pages")

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Hand over a page; False after the last."""
        rows, width = self.values.shape
        count = min(self.rows, rows - self.place)
        if count <= 0:
            return False
        # Read, not mapped: pages of a map count as memory of the process for as long as it lives.
        page = np.fromfile(
            str(self.values.filename), np.float32, count * width,
            offset=self.values.offset + 4 * width * self.place,
        )  # fmt: skip
        self.place += count
        input_data(data=page.reshape(count, width), feature_types=self.kinds)
        return True

    def reset(self) -> None:
        """Begin anew."""
        self.place = 0


def row_matrix(values: NDArray[Any], kinds: Sequence[str], max_bin: int) -> xgb.DMatrix:
    """Features in XGBoost's own form; those mapped from a file stay there, page by page.

    Args:
        values: (n, F) float32, NaN where missing; a `numpy.memmap` of a C-ordered file, or any
            array. An empty one is kept in memory.
        kinds: ``q`` or ``c`` a feature.
        max_bin: bins of a feature; 0 keeps exact values, for rows to predict only or for exact
            trees.
    """
    if isinstance(values, np.memmap) and len(values):
        pages = Pages(values, kinds)
        if max_bin:
            return xgb.ExtMemQuantileDMatrix(pages, max_bin=max_bin, enable_categorical=True)
        return xgb.DMatrix(pages, enable_categorical=True)
    if max_bin:
        return xgb.QuantileDMatrix(
            values, feature_types=list(kinds), max_bin=max_bin, enable_categorical=True
        )
    return xgb.DMatrix(values, feature_types=list(kinds), enable_categorical=True)


def taken(values: Any, rows: NDArray[np.int64]) -> Any:
    """Some rows of an array. Of a mapped one no page stays in memory: it is mapped anew.

    Args:
        values: (n, F).
        rows: positions.
    """
    if isinstance(values, np.memmap):
        again = np.memmap(
            str(values.filename), values.dtype, "r", values.offset, shape=values.shape
        )
        return np.array(again[rows])
    return values[rows]


@dataclass(frozen=True)
class Columns:
    """Rows of features with the kind of every column.

    Args:
        values: (N, d) float32; NaN where missing; categories as codes.
        kinds: ``q`` for numbers and ``c`` for categories, one a column.
    """

    values: NDArray[np.float32]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.values)

    def __getitem__(self, rows: NDArray[Any]) -> "Columns":
        """Some of the rows, by mask or position."""
        return Columns(self.values[rows], self.kinds)

    def matrix(
        self, *, label: NDArray[Any] | None = None, weight: NDArray[Any] | None = None
    ) -> xgb.DMatrix:
        """XGBoost's own form.

        Args:
            label: (N,) or (N, T).
            weight: (N,).
        """
        return xgb.DMatrix(
            self.values,
            label=label,
            weight=weight,
            feature_types=list(self.kinds),
            enable_categorical=True,
        )


def tree_columns(schema: TableSchema, frame: pd.DataFrame, *, one_hot: bool = False) -> Columns:
    """Features of a table in the schema's order: categories first, then numbers.

    A missing category is NaN, as a missing number is; any category that training did not have is
    category 0.

    Args:
        schema: fitted columns.
        frame: N rows with these columns.
        one_hot: a column of 0 and 1 per category, for trees that cannot split categories.

    Raises:
        ColumnError: a column is absent or holds what it must not hold.
    """
    return encoded_columns(schema, schema.encode(frame), one_hot=one_hot)


def encoded_columns(
    schema: TableSchema, arrays: Mapping[str, NDArray[Any]], *, one_hot: bool = False
) -> Columns:
    """The same of rows that are encoded already.

    Args:
        schema: fitted columns.
        arrays: of `TableSchema.encode`; categories in any integer type.
        one_hot: see `tree_columns`.
    """
    parts: list[NDArray[np.float32]] = []
    if "categorical" in arrays:
        codes = arrays["categorical"]
        if one_hot:
            for i, K in enumerate(schema.cardinalities):
                parts.append((codes[:, [i]] == np.arange(K)).astype(np.float32))
        else:
            parts.append(np.where(codes == MISSING, np.nan, codes).astype(np.float32))
    if "numeric" in arrays:
        parts.append(arrays["numeric"].astype(np.float32))
    values = np.concatenate(parts, 1)
    categories = 0 if one_hot else len(schema.categorical)
    return Columns(values, ("c",) * categories + ("q",) * (values.shape[1] - categories))


def split_columns(schema: TableSchema, rows: TableRows, *, one_hot: bool = False) -> Columns:
    """The same of a split of a table.

    Args:
        schema: fitted columns.
        rows: of `TableDataModule.dataset`.
        one_hot: see `tree_columns`.
    """
    inputs = ("numeric", "categorical")
    held = {name: array for name, array in rows.arrays.items() if name in inputs}
    if rows.chosen is not None:
        held = {name: np.take(array, rows.chosen, axis=0) for name, array in held.items()}
    return encoded_columns(schema, held, one_hot=one_hot)


def with_task(data: Columns, ids: NDArray[Any], tasks: int, *, one_hot: bool) -> Columns:
    """The features with the task as one more categorical column, or as `tasks` columns of 0 and 1.

    Args:
        data: N rows.
        ids: (N,) positions in 0..tasks-1; any other gives a missing category or all zeros.
        tasks: number of tasks.
        one_hot: columns of 0 and 1.
    """
    if one_hot:
        added = (ids[:, None] == np.arange(tasks)).astype(np.float32)
        return Columns(np.concatenate([data.values, added], 1), data.kinds + ("q",) * tasks)
    codes = np.where((ids >= 0) & (ids < tasks), ids, np.nan).astype(np.float32)
    return Columns(np.concatenate([data.values, codes[:, None]], 1), (*data.kinds, "c"))
