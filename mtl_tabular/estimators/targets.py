"""y of an estimator, in any form, as one column per task; and predictions back in that form."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array
from torch import Tensor

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks.base import RESERVED_NAMES
from mtl_tabular.estimators.features import to_pandas
from mtl_tabular.levels import as_text
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, TargetColumn

Form = Literal["vector", "array", "frame"]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Labels of N rows.

    Args:
        columns: labels (N,) by the name they had in y; missing ones are NaN or None.
        form: ``vector`` for one task given as (N,), ``array`` for (N, T), ``frame`` for a frame or
            a mapping of columns.
    """

    columns: dict[str, NDArray[Any]]
    form: Form

    def __len__(self) -> int:
        """N."""
        return len(next(iter(self.columns.values())))


def read_targets(y: Any, *, estimator: str) -> Targets:
    """Labels by task.

    Args:
        y: (N,) or (N, T) array or list, a pandas or polars series or frame, or columns by name.
        estimator: its name, for errors.

    Raises:
        ValueError: y is None, has another number of axes, or is one column with missing labels;
            several columns may miss some.
    """
    if y is None:
        raise ValueError(f"{estimator} requires y to be passed, but the target y is None.")
    y = to_pandas(y)
    if isinstance(y, pd.Series):
        name = "y" if y.name is None else str(y.name)
        return _vector(name, y.to_numpy())
    if isinstance(y, Mapping):
        columns = {str(key): np.asarray(to_pandas(column)) for key, column in y.items()}
        lengths = {name: column.shape for name, column in columns.items()}
        if (
            not columns
            or len(set(lengths.values())) > 1
            or any(len(s) > 1 for s in lengths.values())
        ):
            raise ArgumentError("y", "hold columns of one length", lengths)
        return Targets(columns={k: _plain(v) for k, v in columns.items()}, form="frame")
    if isinstance(y, pd.DataFrame):
        names = [str(column) for column in y.columns]
        if len(set(names)) < len(names) or not names:
            raise ArgumentError("columns of y", "have different names", names)
        found = {name: _plain(y.iloc[:, k].to_numpy()) for k, name in enumerate(names)}
        return Targets(columns=found, form="frame")
    if isinstance(y, list | tuple) and y and isinstance(y[0], list | tuple):
        y = np.array(y, dtype=object)  # which keeps numbers beside text
    array = check_array(
        y,
        ensure_2d=False,
        dtype=None,
        ensure_all_finite=False,
        input_name="y",
        estimator=estimator,
    )
    if array.ndim == 1:
        return _vector("y", array)
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(
            f"y should be a 1d array or (n_samples, n_tasks), got shape {array.shape}."
        )
    return Targets(
        columns={f"y{k}": _plain(array[:, k]) for k in range(array.shape[1])}, form="array"
    )


def _vector(name: str, values: NDArray[Any]) -> Targets:
    if pd.isna(values).any():
        raise ValueError(
            "Input y contains NaN. Labels may be missing where there are several tasks: hand y "
            "over as an array (n_samples, n_tasks), a frame or a mapping of columns."
        )
    return Targets(columns={name: _plain(values)}, form="vector")


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Objects that are all numbers or all truth values as an array of them."""
    if values.dtype != object:
        return values
    inferred: NDArray[Any] = pd.Series(values).infer_objects().to_numpy()
    return inferred


def task_identifiers(names: Sequence[str]) -> list[str]:
    """A name for every task that can key modules and logged metrics, close to its column's."""
    taken: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name)
        if not plain.isidentifier():
            plain = f"task_{plain}"
        while plain in taken or plain in RESERVED_NAMES:
            plain += "_"
        taken.append(plain)
    return taken


def classes_of(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """The classes of a column in the order of their values, with its own type.

    Raises:
        LabelError: no row is labelled, there is only one class, a label is infinite, or numbers are
            mixed with text.
        ValueError: the labels are continuous numbers.
    """
    known = values[~pd.isna(values)]
    if not len(known):
        raise LabelError(name, "be there for at least one row", "none")
    if known.dtype == object:
        known = _plain(known)
    if known.dtype.kind == "f" and not np.isfinite(known).all():
        raise LabelError(name, "be finite", "infinity")
    try:
        classes: NDArray[Any] = np.unique(known)
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in known.tolist()})
        raise LabelError(name, "be of one type", ", ".join(kinds)) from error
    check_classification_targets(known)
    if len(classes) < 2:
        raise LabelError(name, "hold at least two classes", f"one class, {classes[0]!r}")
    return classes


def class_record(
    name: str, classes: NDArray[Any], record: TargetColumn | None = None
) -> TargetColumn:
    """The record of a task with these classes: binary where there are two.

    Args:
        name: of the task.
        classes: as `classes_of` gives them.
        record: `BinaryTarget` or `MulticlassTarget` to fill in, where the user gave one.

    Raises:
        LabelError: `record` is binary and there are more than two classes.
    """
    texts = tuple(as_text(pd.Series(classes))[0].tolist())
    if isinstance(record, BinaryTarget):
        if len(texts) != 2:
            raise LabelError(name, "hold two classes", texts[:5])
        return replace(record, classes=texts)
    if isinstance(record, MulticlassTarget):
        return replace(record, classes=texts)
    return (BinaryTarget if len(texts) == 2 else MulticlassTarget)(classes=texts)


def probabilities(activated: Tensor) -> NDArray[np.float64]:
    """Probabilities (N, K) of all classes; the activated prediction may hold one of two."""
    positive: NDArray[np.float64] = activated.double().numpy()
    return np.concatenate([1 - positive, positive], 1) if positive.shape[1] == 1 else positive


def assemble(columns: Mapping[str, NDArray[Any]], form: Form) -> Any:
    """Predicted columns (N,) in the form of y: (N,), or (N, T), or a pandas frame for ``frame``.

    Columns of different types share an array of objects; types that NumPy can unite without loss of
    meaning (integers and floats) are united.
    """
    if form == "frame":
        return pd.DataFrame(dict(columns))
    arrays = list(columns.values())
    if form == "vector":
        return arrays[0]
    kinds = {"number" if a.dtype.kind in "iuf" else a.dtype.kind for a in arrays}
    if len(kinds) > 1:
        arrays = [a.astype(object) for a in arrays]
    return np.stack(arrays, 1)
