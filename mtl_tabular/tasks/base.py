"""A task whose targets are a column: what it learns from the training rows, and how it encodes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks import Task
from mtl_tabular.levels import as_text


@dataclass(frozen=True, kw_only=True)
class TargetColumn(Task, ABC):
    """Base of the tasks of tables.

    A record knows nothing of the data at first. `fit` returns one that does (classes, or mean and
    spread, of the *training* rows); the command line and the estimators call it, and checkpoints
    hold the result, so a model always carries its own units and class names.

    Args:
        weight: see `mtl_core.tasks.Task`.
        groups: likewise.
        column: name of the target column; empty means the task's own name. Task names are
            identifiers, column names need not be.
        level: in a long table, the value of the task column whose rows belong to this task. Empty
            in a wide table; a record without a level in a long table stands for one task a level.
        rows: labelled training rows that the record was fitted on; 0 where it was not fitted.
    """

    column: str = ""
    level: str = ""
    rows: int = 0

    def __post_init__(self) -> None:
        """Check the count of rows."""
        super().__post_init__()
        if self.rows < 0:
            raise ArgumentError("rows", "be at least 0", self.rows)

    @property
    def fitted(self) -> bool:
        """Whether the record knows its data."""
        return self.rows > 0

    @abstractmethod
    def fit(self, name: str, values: "pd.Series[Any]") -> Self:
        """The record with what the training rows say; what was given by hand stays.

        Args:
            name: of the task, for errors.
            values: the target column of the training rows; missing values are missing labels.

        Raises:
            LabelError: no row is labelled, or the values do not fit the kind of task.
        """

    @abstractmethod
    def encode(self, name: str, values: "pd.Series[Any]") -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Targets as the loss takes them, and which rows carry one.

        Args:
            name: of the task, for errors.
            values: the target column.

        Returns:
            Targets (N,), zero where there is no label, and the mask (N,).

        Raises:
            LabelError: a value is none that the task allows; the value and its row are named.
        """

    @abstractmethod
    def decode(self, activated: Tensor) -> NDArray[Any]:
        """Activated predictions (B, C) → what the column would hold, (B,): classes or numbers."""

    def _place(self) -> dict[str, str]:
        """Column and level for `readout`, where the record names them."""
        held = {"column": self.column, "level": self.level}
        return {key: value for key, value in held.items() if value}

    def _check_any(self, name: str, labelled: NDArray[np.bool_]) -> None:
        if not labelled.any():
            raise LabelError(name, "be there for at least one training row", "none")


def class_texts(name: str, values: "pd.Series[Any]") -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Class labels as canonical text (N,), and which rows carry one.

    Raises:
        LabelError: a label is infinite, a date or a list.
    """
    try:
        texts, missing = as_text(values)
    except TypeError as error:
        raise LabelError(name, "be numbers, text or booleans", error) from error
    if any(text in ("inf", "-inf") for text in set(texts[~missing])):
        raise LabelError(name, "be finite", "infinity")
    return texts, ~missing


def unseen_error(
    name: str, values: "pd.Series[Any]", unseen: NDArray[np.bool_], classes: tuple[str, ...]
) -> LabelError:
    """What to raise for classes that training did not have."""
    found = sorted({str(v) for v in values[unseen].tolist()})
    rows = values.index[unseen].tolist()
    known = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
    where = f"rows {', '.join(str(row) for row in rows[:4])}{', ...' if len(rows) > 4 else ''}"
    return LabelError(name, f"be among the classes of training ({known})", found[:5], where)
