"""Long tables: a column says which task a row belongs to."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.types import TaskName
from mtl_tabular.data.columns import ColumnError, as_categories
from mtl_tabular.levels import encode_levels, sorted_levels
from mtl_tabular.tasks import TargetColumn


def fit_long(
    tasks: Mapping[TaskName, TargetColumn], rows: pd.DataFrame, task_column: str
) -> dict[TaskName, TargetColumn]:
    """Records of a long table, fitted; one per level for every record that has none.

    A record without a level is a template. Its copies are called ``<name>_<level>``, with
    underscores for characters that no identifier has, and come in the order of the levels: numbers
    by value, other texts by alphabet. A template learns from the rows of all its levels together:
    its tasks share their classes, or their mean and spread, because a task of twenty rows has no
    reliable spread of its own. A record with a level learns from that level's rows.

    Args:
        tasks: records by name.
        rows: target columns and task column of the training rows.
        task_column: name of the task column.

    Raises:
        ColumnError: a row has no level.
        LabelError: a task has no labelled training row, or its labels do not fit its kind.
        ArgumentError: two tasks would get the same name.

    Example:
        >>> from mtl_tabular.tasks import NumericTarget
        >>> rows = pd.DataFrame({"joint": [10, 2, 2], "torque": [1.0, 3.0, 5.0]})
        >>> fitted = fit_long({"torque": NumericTarget()}, rows, "joint")
        >>> [(name, task.level, task.mean, task.rows) for name, task in fitted.items()]
        [('torque_2', '2', 3.0, 2), ('torque_10', '10', 3.0, 1)]
    """
    texts = level_texts(rows[task_column])
    levels = sorted_levels(texts)
    fitted: dict[TaskName, TargetColumn] = {}
    for name, task in tasks.items():
        column = task.column or name
        target = rows[column]
        taken = {t.level for n, t in tasks.items() if t.level and (t.column or n) == column}
        own = [task.level] if task.level else [level for level in levels if level not in taken]
        record = task.fit(name, target[np.isin(texts.astype(str), own)])
        counts = pd.Series(texts[target.notna().to_numpy()]).value_counts()
        for level in own:
            title = name if task.level else f"{name}_{re.sub(r'[^0-9A-Za-z_]', '_', level)}"
            if title in fitted:
                raise ArgumentError(
                    f"levels of {task_column!r}", "give every task a name of its own", title
                )
            if not counts.get(level, 0):
                raise LabelError(title, "be there for at least one training row", "none")
            fitted[title] = replace(record, column=column, level=level, rows=int(counts[level]))
    return fitted


def level_texts(values: "pd.Series[Any]") -> NDArray[Any]:
    """Levels (N,) of a task column as canonical text.

    Raises:
        ColumnError: a row has no level, or the column holds dates, lists or infinities.
    """
    positions, texts = as_categories(values)
    missing = positions < 0
    if missing.any():
        raise ColumnError(
            f"task column {values.name!r} must say the task of every row, found none in rows "
            f"{values.index[missing].tolist()[:4]}."
        )
    return np.array(texts, dtype=object)[positions]


def level_codes(values: "pd.Series[Any]", levels: tuple[str, ...]) -> NDArray[np.int64]:
    """Position (N,) of every row's level among `levels`.

    Raises:
        ColumnError: a level is not among them; the value and its rows are named, or a row has none.
    """
    codes = encode_levels(level_texts(values), levels)
    unknown = codes < 0
    if unknown.any():
        found = ", ".join(sorted({repr(v) for v in values[unknown].tolist()})[:5])
        known = ", ".join(levels[:8]) + (", ..." if len(levels) > 8 else "")
        raise ColumnError(
            f"task column {values.name!r} must name a task of training ({known}), found {found} in "
            f"rows {values.index[unknown].tolist()[:4]}."
        )
    return codes
