"""Targets of many tasks in a few arrays: how they are encoded, and how batches get them back."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl_core.types import TaskName
from mtl_tabular.data.long import level_codes
from mtl_tabular.levels import encode_levels
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, TargetColumn
from mtl_tabular.tasks.base import class_texts

Arrays = dict[str, NDArray[Any]]


@dataclass
class _Slot:
    """One stored column of targets: that of a task or, in a long table, of one task a level."""

    column: str
    kind: str
    tasks: dict[int, TaskName] = field(default_factory=dict)
    """Task by position of its level; position 0 in a wide table."""


class TargetLayout:
    """Where the targets of every task lie.

    Arrays: ``numbers`` (N, R) float32 and ``classes`` (N, C) of small integers hold a column per
    slot of their kind, zero where there is no label; ``labelled`` (N, R + C) bool says where there
    is one, slots of numbers first; ``level`` (N,) is the task of every row of a long table. In a
    wide table every task has its own slot. In a long one the levels of a target column share one.

    Args:
        tasks: fitted records by name.
        task_column: of a long table; empty in a wide one.
        unseen_classes: ``raise``, or ``unlabelled`` to treat classes that training did not have as
            missing labels, with a warning.
    """

    def __init__(
        self, tasks: Mapping[TaskName, TargetColumn], task_column: str, unseen_classes: str
    ) -> None:
        self.tasks = dict(tasks)
        self.task_column = task_column
        self.unseen_classes = unseen_classes
        self.levels = tuple(dict.fromkeys(t.level for t in tasks.values())) if task_column else ()
        self.slots: list[_Slot] = []
        largest = 2
        for name, task in self.tasks.items():
            empty = pd.Series([], dtype=object, name=task.column or name)
            kind = task.encode(name, empty)[0].dtype.kind
            level = self.levels.index(task.level) if task_column else 0
            self._slot(task.column or name, kind, level).tasks[level] = name
            largest = max(largest, task.out_channels)
        self.slots.sort(key=lambda slot: slot.kind != "f")
        self.reals = sum(slot.kind == "f" for slot in self.slots)
        self._class_type = np.min_scalar_type(largest)
        self._level_type = np.min_scalar_type(max(len(self.levels), 1))
        self._codes = [torch.tensor(list(slot.tasks))[:, None] for slot in self.slots]
        self._names = [list(slot.tasks.values()) for slot in self.slots]

    def _slot(self, column: str, kind: str, level: int) -> _Slot:
        for slot in self.slots:
            same = (slot.column, slot.kind) == (column, kind)
            if self.task_column and same and level not in slot.tasks:
                return slot
        self.slots.append(_Slot(column, kind))
        return self.slots[-1]

    @property
    def columns(self) -> list[str]:
        """Columns of a table that `encode` reads."""
        named = [slot.column for slot in self.slots]
        return list(dict.fromkeys([*named, *([self.task_column] if self.task_column else [])]))

    def encode(self, frame: pd.DataFrame) -> Arrays:
        """Arrays of N rows.

        Raises:
            LabelError: a value is none that its task allows; task, value and row are named.
            ColumnError: a row of a long table belongs to no task.
        """
        size = len(frame)
        level = np.zeros(size, dtype=np.int64)
        if self.task_column:
            level = level_codes(frame[self.task_column], self.levels)
        numbers = np.zeros((size, self.reals), dtype=np.float32)
        classes = np.zeros((size, len(self.slots) - self.reals), dtype=self._class_type)
        labelled = np.zeros((size, len(self.slots)), dtype=np.bool_)
        for i, slot in enumerate(self.slots):
            values = frame[slot.column]
            block = numbers[:, i] if i < self.reals else classes[:, i - self.reals]
            for name, own in self._alike(slot):
                rows = np.flatnonzero(np.isin(level, own)) if self.task_column else slice(None)
                chosen = values.iloc[rows]
                encoded, known = self._encode(name, chosen)
                block[rows] = encoded
                labelled[rows, i] = known
        arrays: Arrays = {"numbers": numbers, "classes": classes, "labelled": labelled}
        if self.task_column:
            arrays["level"] = level.astype(self._level_type)
        return arrays

    def _alike(self, slot: _Slot) -> list[tuple[TaskName, list[int]]]:
        """Levels of a slot whose records encode alike, each under the name of its first task."""
        alike: dict[TargetColumn, tuple[TaskName, list[int]]] = {}
        for level, name in slot.tasks.items():
            bare = replace(self.tasks[name], level="", rows=0, weight=1.0, groups=())
            alike.setdefault(bare, (name, []))[1].append(level)
        return list(alike.values())

    def _encode(
        self, name: TaskName, values: "pd.Series[Any]"
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        task = self.tasks[name]
        if self.unseen_classes == "unlabelled" and isinstance(
            task, BinaryTarget | MulticlassTarget
        ):
            values = known_classes(name, task, values)
        return task.encode(name, values)

    def batch(self, arrays: Arrays) -> tuple[dict[TaskName, Tensor], dict[TaskName, Tensor]]:
        """Targets (B,) by task, and masks (B,) of labelled rows where some lack a label.

        A task without any label among the rows has no entry.
        """
        targets: dict[TaskName, Tensor] = {}
        masks: dict[TaskName, Tensor] = {}
        numbers = torch.from_numpy(np.ascontiguousarray(arrays["numbers"].T))
        classes = torch.from_numpy(np.ascontiguousarray(arrays["classes"].T).astype(np.int64))
        values = [*numbers.unbind(), *classes.unbind()]
        known = [torch.ones(())] * len(values)
        if "labelled" in arrays:
            known = list(torch.from_numpy(np.ascontiguousarray(arrays["labelled"].T)).unbind())
        level = arrays.get("level")
        for i, value in enumerate(values):
            if level is None:
                name = self._names[i][0]
                if "labelled" not in arrays or bool(known[i].all()):
                    targets[name] = value
                elif bool(known[i].any()):
                    targets[name], masks[name] = value, known[i]
                continue
            mask = self._codes[i] == torch.from_numpy(level.astype(np.int64))
            if "labelled" in arrays:
                mask &= known[i]
            held = torch.where(mask, value, torch.zeros((), dtype=value.dtype))
            for j in mask.any(1).nonzero().flatten().tolist():
                targets[self._names[i][j]], masks[self._names[i][j]] = held[j], mask[j]
        return self._ordered(targets), self._ordered(masks)

    def _ordered(self, entries: dict[TaskName, Tensor]) -> dict[TaskName, Tensor]:
        return {name: entries[name] for name in self.tasks if name in entries}

    def counts(self, arrays: Arrays) -> dict[TaskName, int]:
        """Labelled rows of every task."""
        counts: dict[TaskName, int] = {}
        for i, slot in enumerate(self.slots):
            labelled = np.asarray(arrays["labelled"][:, i])
            level = arrays.get("level")
            found = np.bincount(
                np.zeros(labelled.sum(), dtype=np.int64) if level is None else level[labelled],
                minlength=max(len(self.levels), 1),
            )
            counts |= {name: int(found[k]) for k, name in slot.tasks.items()}
        return self._ordered_counts(counts)

    def _ordered_counts(self, counts: dict[TaskName, int]) -> dict[TaskName, int]:
        return {name: counts[name] for name in self.tasks}


def known_classes(
    name: TaskName, task: BinaryTarget | MulticlassTarget, values: "pd.Series[Any]"
) -> "pd.Series[Any]":
    """A target column with classes that the task does not know made missing, with a warning."""
    texts, labelled = class_texts(name, values)
    unseen = labelled & (encode_levels(texts, task.classes) < 0)
    if not unseen.any():
        return values
    found = sorted({str(v) for v in values[unseen].tolist()})
    warnings.warn(
        f"{int(unseen.sum())} rows of task {name!r} count as unlabelled: training had no class "
        f"{', '.join(found[:5])}.",
        stacklevel=2,
    )
    return values.astype(object).mask(unseen, None)
