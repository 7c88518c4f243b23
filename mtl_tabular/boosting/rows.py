"""From what a user hands to `fit` to rows: the task of every row, its features, its place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.boosting.objectives import Floats
from mtl_tabular.data.schema import ColumnError


def take_task_column(X: Any, column: str | int | None) -> tuple[Any, NDArray[Any] | None]:
    """Features without the task column, and that column (n,); X itself is left as it is.

    Args:
        X: a pandas or polars frame, or an array (n, F).
        column: a name for frames, a position for arrays; None leaves all columns.

    Raises:
        ColumnError: there is no such column.
    """
    if column is None:
        return X, None
    if isinstance(column, str):
        if not hasattr(X, "columns"):
            raise ColumnError(
                f"task_column {column!r} is a name, so X must be a frame, found "
                f"{type(X).__name__}: give the column's position."
            )
        names = [str(name) for name in X.columns]
        if column not in names:
            near = UnknownNameError("task_column", column, names)
            raise ColumnError(f"X must have the task column. {near}")
        values = np.asarray(X[column])
        rest = [name for name in X.columns if str(name) != column]
        return X[rest], values
    width = X.shape[1]
    if not -width <= column < width:
        raise ColumnError(f"task_column must be a position in 0..{width - 1}, found {column}.")
    if hasattr(X, "columns"):
        return take_task_column(X, str(X.columns[column]))
    array = np.asarray(X)
    return np.delete(array, column % width, axis=1), array[:, column]


def task_codes(task: Any, known: NDArray[Any]) -> NDArray[np.int64]:
    """Positions (n,) of tasks among the known ones, -1 for any other, a missing one included."""
    values = pd.Index(np.asarray(task).reshape(-1))
    codes: NDArray[np.int64] = pd.Index(known).get_indexer(values).astype(np.int64)
    return codes


def known_tasks(task: Any, rows: int) -> NDArray[Any]:
    """Tasks of the training rows in ascending order.

    Args:
        task: (n,) of any values that can be told apart.
        rows: n.

    Raises:
        ArgumentError: another number of rows, or a missing task.
    """
    values = np.asarray(task)
    if values.shape not in ((rows,), (rows, 1)):
        raise ArgumentError("task", f"name a task for each of the {rows} rows", values.shape)
    values = values.reshape(-1)
    missing = pd.isna(values)
    if missing.any():
        raise ArgumentError(
            "task", "name a task for every row", f"none in rows {np.flatnonzero(missing)[:5]}"
        )
    found = pd.unique(pd.Series(values))
    try:
        return np.sort(np.asarray(found))
    except TypeError:
        return np.array(sorted(found, key=lambda v: (type(v).__name__, str(v))), dtype=object)


def feature_kinds(categorical: Sequence[int | str] | None, names: list[str]) -> tuple[str, ...]:
    """``c`` for categorical features (codes from 0) and ``q`` for numbers.

    Args:
        categorical: positions or names.
        names: of all features.

    Raises:
        UnknownNameError: a name is no feature.
        ArgumentError: a position is none.
    """
    kinds = ["q"] * len(names)
    for chosen in categorical or ():
        if isinstance(chosen, str):
            if chosen not in names:
                raise UnknownNameError("categorical_features", chosen, names)
            kinds[names.index(chosen)] = "c"
        else:
            if not 0 <= chosen < len(names):
                raise ArgumentError("categorical_features", f"lie in 0..{len(names) - 1}", chosen)
            kinds[chosen] = "c"
    return tuple(kinds)


def add_task_features(
    values: Floats, tasks: NDArray[np.int64], count: int, how: str
) -> tuple[Floats, tuple[str, ...]]:
    """Features with the task appended, and the kinds of what was appended.

    Args:
        values: (n, F).
        tasks: (n,) in 0..T-1, -1 where unknown.
        count: T.
        how: ``none``, ``categorical`` or ``one-hot``.
    """
    if how == "one-hot":
        hot = (tasks[:, None] == np.arange(count)).astype(np.float32)
        return np.concatenate([values, hot], 1), ("q",) * count
    if how == "categorical":
        codes = np.where(tasks < 0, np.nan, tasks).astype(np.float32)
        return np.concatenate([values, codes[:, None]], 1), ("c",)
    return values, ()


def as_plain(values: NDArray[Any], argument: str) -> dict[str, Any]:
    """An array of tasks or classes as plain data.

    Raises:
        ArgumentError: values that JSON does not hold.
    """
    listed = values.tolist()
    if not all(isinstance(v, str | int | float | bool) for v in listed):
        kinds = sorted({type(v).__name__ for v in listed})
        raise ArgumentError(argument, "be text, numbers or booleans to be saved", kinds)
    return {"dtype": str(values.dtype) if values.dtype.kind in "biuf" else "object",
            "values": listed}  # fmt: skip


def from_plain(saved: dict[str, Any]) -> NDArray[Any]:
    """The array of `as_plain`."""
    return np.array(saved["values"], dtype=saved["dtype"])
