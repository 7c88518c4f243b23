"""Targets of tasks as XGBoost takes them: values, who has one, and which loss."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.data.rows import TableRows
from mtl_tabular.data.schema import ColumnError
from mtl_tabular.levels import as_text
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget, TargetColumn

Labels: TypeAlias = dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]
"""Targets (N,) and the mask (N,) of the rows that carry one, by task."""


def target_labels(
    tasks: Mapping[str, TargetColumn], frame: pd.DataFrame, *, task_column: str = ""
) -> Labels:
    """Encoded targets of every task; a row of a long table is labelled for its own task only.

    Args:
        tasks: fitted records by name.
        frame: N rows with the target columns.
        task_column: of a long table.

    Raises:
        ColumnError: a target column or the task column is absent.
        LabelError: a target is none that its task allows.
    """
    names = [str(c) for c in frame.columns]
    levels = None
    if task_column:
        levels, _ = as_text(_column(frame, names, task_column, "task"))
    labels: Labels = {}
    for name, task in tasks.items():
        target = _column(frame, names, task.column or name, "target")
        own = np.ones(len(frame), dtype=bool)
        if levels is not None and task.level:
            own = levels == task.level
        values, labelled = task.encode(name, target.where(own))
        labels[name] = (values, labelled & own)
    return labels


def row_labels(tasks: Mapping[str, TargetColumn], rows: TableRows) -> Labels:
    """The same of a split of a table, whose targets are encoded already.

    Args:
        tasks: fitted records by name.
        rows: a split with targets.
    """
    batch = rows.batch(np.arange(len(rows)))
    everywhere, nowhere = np.ones(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    labels: Labels = {}
    for name in tasks:
        if name in batch["targets"]:
            mask = batch.get("labelled", {}).get(name)
            labels[name] = (
                batch["targets"][name].numpy(), everywhere if mask is None else mask.numpy()
            )  # fmt: skip
        else:
            labels[name] = (np.zeros(len(rows), dtype=np.float32), nowhere)
    return labels


def _column(frame: pd.DataFrame, names: list[str], name: str, kind: str) -> "pd.Series[Any]":
    if name not in names:
        near = UnknownNameError("column", name, names)
        raise ColumnError(f"the table must have the {kind} column {name!r}. {near}")
    return frame.iloc[:, names.index(name)]


def objective_of(task: TargetColumn) -> dict[str, Any]:
    """XGBoost's objective and validation metric for a task.

    Raises:
        ArgumentError: a kind of task that trees do not have.
    """
    match task:
        case BinaryTarget():
            return {"objective": "binary:logistic", "eval_metric": "logloss"}
        case MulticlassTarget():
            classes = {"num_class": task.out_channels}
            return {"objective": "multi:softprob", "eval_metric": "mlogloss", **classes}
        case NumericTarget(loss="mse"):
            return {"objective": "reg:squarederror", "eval_metric": "rmse"}
        case NumericTarget(loss="mae"):
            return {"objective": "reg:absoluteerror", "eval_metric": "mae"}
        case NumericTarget():
            return {"objective": "reg:pseudohubererror", "eval_metric": "mphe"}
    raise ArgumentError("tasks", "be binary, multiclass or numeric", type(task).__name__)


def row_weights(task: TargetColumn, targets: NDArray[Any]) -> NDArray[np.float64]:
    """Weights (N,) of rows: `BinaryTarget.pos_weight` for positive ones, else 1."""
    weights = np.ones(len(targets))
    if isinstance(task, BinaryTarget):
        weights[targets == 1] = task.pos_weight
    return weights


def pooled_scale(tasks: Mapping[str, TargetColumn]) -> tuple[float, float]:
    """Centre and spread of numeric tasks together, from those of every task."""
    numeric = [t for t in tasks.values() if isinstance(t, NumericTarget)]
    rows = np.array([t.rows for t in numeric], dtype=float)
    means = np.array([t.mean for t in numeric])
    squares = np.array([t.std**2 + t.mean**2 for t in numeric])
    centre = float(np.average(means, weights=rows))
    return centre, float(np.sqrt(np.average(squares, weights=rows) - centre**2))


def check_strategy(tasks: Mapping[str, TargetColumn], strategy: str, task_column: str) -> None:
    """Refuse tasks that do not suit a strategy of `BoostedTrees`.

    Raises:
        ArgumentError: they are not fitted, or their kinds do not go together.
    """
    unfitted = [name for name, task in tasks.items() if not task.fitted]
    if unfitted:
        raise ArgumentError("tasks", "be fitted on the training rows", unfitted)
    if strategy == "joint":
        bad = [
            name
            for name, task in tasks.items()
            if not isinstance(task, NumericTarget) or task.loss != "mse"
        ]
        if bad:
            raise ArgumentError("strategy", "be joint for numeric tasks of loss mse only", bad)
    if strategy in ("pooled", "feature"):
        if not task_column or not all(task.level for task in tasks.values()):
            raise ArgumentError("task_column", "name the column of tasks to pool", "")
        check_one_kind(tasks, "to pool")


def check_one_kind(tasks: Mapping[str, TargetColumn], purpose: str) -> None:
    """Refuse tasks that no single model can have.

    Raises:
        ArgumentError: they differ in kind, loss or classes.
    """
    kinds = {
        (type(t), getattr(t, "classes", ()), objective_of(t)["objective"]): name
        for name, t in tasks.items()
    }
    if len(kinds) > 1:
        found = [
            f"{name}: {kind.__name__}" + (f" {list(classes)}" if classes else f" ({loss})")
            for (kind, classes, loss), name in kinds.items()
        ]
        raise ArgumentError("tasks", f"be of one kind, with the same classes, {purpose}", found)
