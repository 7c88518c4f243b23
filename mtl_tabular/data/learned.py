"""What a data module learns from the training rows of its table: columns and task records."""

from abc import ABC
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.data.datamodule import MultiTaskDataModule
from mtl_core.errors import ArgumentError, EmptySplitError, UnknownNameError
from mtl_core.types import TaskName
from mtl_tabular.data.long import fit_long, level_texts
from mtl_tabular.data.readers import Table, TableSource
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.data.split import TRAIN, assign_groups, assign_random
from mtl_tabular.data.targets import known_classes
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, TargetColumn

Storage = Literal["memory", "disk"]
UnseenClasses = Literal["raise", "unlabelled"]


class LearnedTable(MultiTaskDataModule, ABC):
    """Sources, division and `fit` of `TableDataModule`, which sets the attributes and says more."""

    tasks: dict[TaskName, Any]
    tables: dict[str, Table | None]
    schema: TableSchema
    features: list[str] | None
    ignore: list[str]
    categorical: list[str]
    task_column: str
    val_fraction: float
    test_fraction: float
    stratify: bool
    group: str
    split_seed: int
    storage: Storage
    max_levels: int
    min_frequency: int
    unseen_classes: UnseenClasses
    _sources: dict[str, TableSource]
    _parts: NDArray[np.uint8] | None

    @property
    def fitted(self) -> bool:
        """Whether schema and all task records are known."""
        for task in self._records:
            if not task.fitted or (self.task_column and not task.level):
                return False
        return len(self.schema) > 0

    @property
    def _records(self) -> list[TargetColumn]:
        return list(self.tasks.values())

    def fit(self) -> None:
        """Learn `schema` and `tasks` from the training rows; a no-op where both are known.

        Target, group and task columns are held in memory meanwhile, features a chunk at a time
        where `storage` is ``disk``.

        Raises:
            ColumnError: a column is absent, repeated, or holds what it must not hold.
            LabelError: the labels of a task do not fit its kind, or there are none.
            UnknownNameError: a name in `features`, `ignore` or `categorical` is no column.
            UnreadableFileError: a file cannot be read.
            EmptySplitError: the table has no rows for training.
        """
        if self.fitted:
            return
        source = self._source("table")
        columns = self._feature_columns(source)
        if self.storage == "memory":
            source.hold([*columns, *self._label_columns()])
        labels = source.frame(self._label_columns())
        train = self._assign(labels) == TRAIN
        if not train.any():
            raise EmptySplitError("train", source.label)
        if not len(self.schema):
            self.schema = TableSchema.fit(
                self._training_rows(columns, train),
                categorical=self.categorical,
                max_levels=self.max_levels,
                min_frequency=self.min_frequency,
            )
        self.tasks = self._fit_tasks(labels[train])

    def _training_rows(
        self, columns: Sequence[str], train: NDArray[np.bool_]
    ) -> Iterator[pd.DataFrame]:
        for chunk in self._chunks(self._source("table"), columns):
            yield chunk[train[chunk.index.to_numpy()]]

    def _chunks(self, source: TableSource, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        if self.storage == "memory":
            yield source.frame(columns)
        else:
            yield from source.chunks(columns)

    def _fit_tasks(self, rows: pd.DataFrame) -> dict[TaskName, TargetColumn]:
        if self.unseen_classes == "unlabelled":
            rows = rows.copy()
            for name, task in self.tasks.items():
                if isinstance(task, BinaryTarget | MulticlassTarget) and task.classes:
                    column = task.column or name
                    rows[column] = known_classes(name, task, rows[column])
        if self.task_column:
            if all(task.fitted and task.level for task in self._records):
                return self.tasks
            return fit_long(self.tasks, rows, self.task_column)
        return {
            name: task if task.fitted else task.fit(name, rows[task.column or name])
            for name, task in self.tasks.items()
        }

    def _source(self, name: str) -> TableSource:
        if name not in self._sources:
            table = self.tables[name]
            if table is None:
                raise ArgumentError(name, "be a path or a frame", None)
            self._sources[name] = TableSource(table)
        return self._sources[name]

    def _target_columns(self) -> list[str]:
        return list(dict.fromkeys(task.column or name for name, task in self.tasks.items()))

    def _label_columns(self) -> list[str]:
        """Columns that division and targets need."""
        source = self._source("table")
        source.require(self._target_columns(), "target column")
        source.require([self.task_column] if self.task_column else [], "task_column")
        source.require([self.group] if self.group else [], "group")
        named = [*self._target_columns(), self.task_column, self.group]
        return [name for name in dict.fromkeys(named) if name]

    def _feature_columns(self, source: TableSource) -> list[str]:
        for argument in ("ignore", "categorical"):
            for name in getattr(self, argument):
                if name not in source.columns:
                    raise UnknownNameError(argument, name, source.columns)
        labels = {*self._target_columns(), self.task_column}
        if self.features is None:
            apart = {*labels, self.group, *self.ignore}
            return [name for name in source.columns if name not in apart]
        source.require(self.features, "features")
        for name in self.features:
            if name in labels:
                raise ArgumentError("features", "hold no target and no task column", name)
        return self.features

    def _assign(self, labels: pd.DataFrame) -> NDArray[np.uint8]:
        """Split (N,) of every row of `table`."""
        if self._parts is None:
            val, test, seed = self.val_fraction, self.test_fraction, self.split_seed
            if self.group and val + test > 0:
                self._parts = assign_groups(labels[self.group], val=val, test=test, seed=seed)
            else:
                if self.task_column:
                    level_texts(labels[self.task_column])
                columns = [labels[name] for name in self._strata_columns()]
                self._parts = assign_random(columns, len(labels), val=val, test=test, seed=seed)
        return self._parts

    def _strata_columns(self) -> list[str]:
        if not self.stratify:
            return []
        if self.task_column:
            return [self.task_column]
        classes = BinaryTarget | MulticlassTarget
        named = [task.column or n for n, task in self.tasks.items() if isinstance(task, classes)]
        return list(dict.fromkeys(named))
