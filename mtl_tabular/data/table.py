"""Any table as a data module: columns to features, target columns to tasks, rows to batches."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from mtl_core.data.dataset import OnError, Split
from mtl_core.data.loader import SampleLoader
from mtl_core.data.sampler import EvaluationSampler
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_tabular.data.learned import LearnedTable, Storage, UnseenClasses
from mtl_tabular.data.loader import OrderedRows, ShuffledRows
from mtl_tabular.data.readers import Table, TableSource
from mtl_tabular.data.rows import RowBatches, TableRows, as_fetched
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.data.split import TEST, TRAIN, VAL
from mtl_tabular.data.store import open_store, store_folder, write_store
from mtl_tabular.data.targets import Arrays, TargetLayout
from mtl_tabular.tasks import TargetColumn


class TableDataModule(LearnedTable):
    """Rows of a table: some columns are features, others the targets of tasks.

    In a *wide* table every task has a column of its own, and a row may lack the labels of some. In
    a *long* table (`task_column`) a row belongs to one task; a task record without a ``level``
    stands for one task per level of that column, see `mtl_tabular.data.long.fit_long`.

    `fit` comes first: it learns `schema` and the task records from the training rows and leaves
    them in `schema` and `tasks`, from which the model is built; the command line and the estimators
    call it. With both known already (a checkpoint's), it reads nothing, and `table` may be absent.

    Rows are encoded once, into a few arrays in memory or on disk, and batches are cut from them
    as a whole. Order, resuming and sharing among processes are those of `MultiTaskDataModule`.

    Inputs of a network: see `TableSchema`. Keys, in prediction only: the row's number, from 0.

    Args:
        tasks: records of `TargetColumn` kinds by name.
        table: training rows, and those of the splits that have no table of their own. A CSV or
            Parquet file, a folder of either, or a frame; every column is found by its name.
        val: validation rows. None: a share `val_fraction` of `table`.
        test: test rows. None: a share `test_fraction` of `table`.
        predict: rows to predict, without need of target columns. None: the test rows.
        schema: columns as learned by an earlier `fit`.
        features: names of feature columns. None: all columns of `table` that are neither targets
            nor the task column nor the group column nor named in `ignore`. Targets of *undeclared*
            tasks look like features to it: name them in `ignore`.
        ignore: columns that are no features.
        categorical: numeric feature columns that hold codes.
        task_column: says which task a row of a long table belongs to; empty for a wide table.
        val_fraction: in [0, 1); 0 without `val` trains without validation.
        test_fraction: in [0, 1).
        stratify: divide every combination of classes (in a long table: every task) in the same
            proportion, see `mtl_tabular.data.split.assign_random`.
        group: column whose values must not be shared by two splits (patients, users); takes
            precedence over `stratify`.
        split_seed: of the division.
        storage: ``memory``, or ``disk`` for tables that do not fit.
        cache_dir: folder of the encoded tables of ``disk``.
        shuffle_block: 0 shuffles all rows; otherwise see `ShuffledRows`.
        max_levels: see `TableSchema.fit`.
        min_frequency: likewise.
        unseen_classes: what a class that training did not have does in other rows: ``raise``, or
            ``unlabelled`` to count such rows as unlabelled, with a warning.
        batch_size: rows per process and step.
        num_workers: loader processes. Cutting a batch takes less than handing it over from one
            process to another, so 0 is fastest unless the disk is slow.
        seed: of shuffling.
        on_error: ``raise``; a table with missing pieces would be another table.
        drop_last: leave out the last training batch if it is incomplete.

    Raises:
        ArgumentError: an argument breaks its rule.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"x": range(20), "y": range(20), "z": [0, 1] * 10})
        >>> from mtl_tabular.tasks import BinaryTarget, NumericTarget
        >>> tasks = {"y": NumericTarget(), "z": BinaryTarget()}
        >>> data = TableDataModule(tasks, table=frame, batch_size=4)
        >>> data.fit()
        >>> data.schema.names, data.tasks["z"].classes
        (('x',), ('0', '1'))
        >>> data.setup("fit")
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["inputs"]["numeric"].shape, list(batch["targets"])
        (torch.Size([4, 1]), ['y', 'z'])
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        table: Table | None = None,
        val: Table | None = None,
        test: Table | None = None,
        predict: Table | None = None,
        schema: TableSchema = NO_COLUMNS,
        features: Sequence[str] | None = None,
        ignore: Sequence[str] = (),
        categorical: Sequence[str] = (),
        task_column: str = "",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        stratify: bool = True,
        group: str = "",
        split_seed: int = 0,
        storage: Storage = "memory",
        cache_dir: str = "runs/tables",
        shuffle_block: int = 0,
        max_levels: int = 10_000,
        min_frequency: int = 1,
        unseen_classes: UnseenClasses = "raise",
        batch_size: int = 2048,
        num_workers: int = 0,
        seed: int = 0,
        on_error: OnError = "raise",
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            tasks,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            on_error=on_error,
            drop_last=drop_last,
        )
        for name, task in self.tasks.items():
            if not isinstance(task, TargetColumn):
                raise ArgumentError(f"task {name!r}", "be a TargetColumn", type(task).__name__)
            if task.level and not task_column:
                raise ArgumentError(
                    f"level of task {name!r}", "be empty without task_column", task.level
                )
        if on_error != "raise":
            raise ArgumentError("on_error", "be 'raise' for tables", on_error)
        if storage not in get_args(Storage):
            raise UnknownNameError("storage", storage, get_args(Storage))
        if unseen_classes not in get_args(UnseenClasses):
            raise UnknownNameError("unseen_classes", unseen_classes, get_args(UnseenClasses))
        self.tables = {"table": table, "val": val, "test": test, "predict": predict}
        self.schema = schema
        self.features = None if features is None else list(features)
        self.ignore = list(ignore)
        self.categorical = list(categorical)
        self.task_column = task_column
        self.val_fraction = 0.0 if val is not None else val_fraction
        self.test_fraction = 0.0 if test is not None else test_fraction
        self.stratify = stratify
        self.group = group
        self.split_seed = split_seed
        self.storage: Storage = storage
        self.cache_dir = cache_dir
        self.shuffle_block = shuffle_block
        self.max_levels = max_levels
        self.min_frequency = min_frequency
        self.unseen_classes: UnseenClasses = unseen_classes
        self._sources: dict[str, TableSource] = {}
        self._arrays: dict[str, Arrays] = {}
        self._parts: NDArray[np.uint8] | None = None
        self._val_limit: int | float | None = None

    def dataset(self, split: Split) -> TableRows:
        """The rows of a split.

        Raises:
            ArgumentError: `fit` was not called, or there is no table for this split.
            ColumnError: a table lacks a column, or holds what it must not hold.
            LabelError: a label is none of its task's.
        """
        if not self.fitted:
            raise ArgumentError("schema and tasks", "be known: call fit() first", self.schema)
        name = self._table_of(split)
        # Rows of the training table have targets anyway, whatever they are wanted for.
        layout = TargetLayout(self.tasks, self.task_column, self.unseen_classes)
        arrays = dict(self._encoded(name, None if name == "predict" else layout))
        parts, chosen = arrays.pop("part", None), None
        if parts is not None:
            code = {"train": TRAIN, "val": VAL}.get(split, TEST)
            chosen = np.flatnonzero(parts == code)
        rows = TableRows(arrays, chosen, None if split == "predict" else layout, split)
        self._report_unlabelled(rows)
        return rows

    def _report_unlabelled(self, rows: TableRows) -> None:
        """Training needs labels of every task; elsewhere a task without any has no scores."""
        lacking = [name for name in self.tasks if not rows.counts.get(name)]
        if rows.split in ("val", "test") and len(rows) and lacking:
            listing = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            warnings.warn(
                f"{len(lacking)} tasks have no label in split {rows.split!r} and get no scores "
                f"there: {listing}.",
                stacklevel=2,
            )
            if len(lacking) < len(self.tasks):
                rows.tasks = list(self.tasks)

    def _table_of(self, split: Split) -> str:
        if split == "train":
            return "table"
        if split == "predict" and self.tables["predict"] is None:
            return self._table_of("test")
        return split if self.tables[split] is not None else "table"

    def _encoded(self, name: str, layout: TargetLayout | None) -> Arrays:
        """Arrays of a whole table, encoded on first use."""
        if name not in self._arrays:
            source = self._source(name)
            if self.storage == "disk":
                self._arrays[name] = self._stored(name, source, layout)
            else:
                (self._arrays[name],) = self._encode(name, source, layout)
                source.release()
        return self._arrays[name]

    def _stored(self, name: str, source: TableSource, layout: TargetLayout | None) -> Arrays:
        division: list[Any] = [self.val_fraction, self.test_fraction, self.split_seed]
        division += [self.stratify, self.group] if name == "table" else []
        key = [source.fingerprint(), repr(self.schema), self.unseen_classes, division]
        key += [repr(self.tasks), self.task_column] if layout is not None else []
        folder = store_folder(self.cache_dir, key)
        if open_store(folder) is None:
            write_store(folder, self._encode(name, source, layout), source.rows)
        arrays = open_store(folder)
        assert arrays is not None
        return arrays

    def _encode(
        self, name: str, source: TableSource, layout: TargetLayout | None
    ) -> Iterator[Arrays]:
        """Arrays of a table: one piece in memory, pieces of bounded size for the disk."""
        source.require(self.schema.names, "feature column")
        columns = list(self.schema.names)
        if layout is not None:
            source.require(layout.columns, "target column")
            columns += layout.columns
        columns = list(dict.fromkeys(columns))
        if self.storage == "memory":
            source.hold([*columns, *(self._label_columns() if name == "table" else [])])
        parts = None
        if name == "table":
            parts = self._assign(source.frame(self._label_columns()))
        code_type = np.min_scalar_type(max(self.schema.cardinalities, default=1) - 1)
        for chunk in self._chunks(source, columns):
            arrays = self.schema.encode(chunk)
            if "categorical" in arrays:
                arrays["categorical"] = arrays["categorical"].astype(code_type)
            if layout is not None:
                arrays |= layout.encode(chunk)
            if parts is not None:
                arrays["part"] = parts[chunk.index.to_numpy()]
            yield arrays

    def prepare_data(self) -> None:
        """Encode the training table in one process before the others look for it on the disk."""
        if self.storage == "disk" and self.fitted and self.tables["table"] is not None:
            layout = TargetLayout(self.tasks, self.task_column, self.unseen_classes)
            self._encoded("table", layout)

    def setup(self, stage: str | None = None) -> None:
        """Encode and check the splits that a stage needs; without validation rows, switch it off.

        Raises:
            ArgumentError: `fit` was not called.
            EmptySplitError: a split holds no rows.
            MissingTaskError: training holds no label of a task, or a split none at all.
        """
        if stage == "fit" and not self.validates:
            self.prepared("train")
            if self.trainer is not None and self._val_limit is None:
                # Lightning's switch for training without validation; an empty list of loaders makes
                # it warn.
                self._val_limit = self.trainer.limit_val_batches
                self.trainer.limit_val_batches = 0
            return
        super().setup(stage)

    def teardown(self, stage: str) -> None:
        """Leave the trainer's limit of validation batches as `setup` found it."""
        if self._val_limit is not None and self.trainer is not None:
            self.trainer.limit_val_batches = self._val_limit
            self._val_limit = None

    @property
    def validates(self) -> bool:
        """Whether there are validation rows."""
        return self.tables["val"] is not None or self.val_fraction > 0

    def val_dataloader(self) -> SampleLoader:
        """Validation batches in order; no loader where there are no validation rows."""
        if not self.validates:
            return []  # type: ignore[return-value]  # Lightning's way to say: no validation
        return super().val_dataloader()

    def training_sampler(self) -> ShuffledRows:
        """All rows once per epoch, shuffled, a batch at a time."""
        num_replicas, rank = self.replicas()
        return ShuffledRows(
            len(self.prepared("train")),
            batch_size=self.batch_size,
            block=self.shuffle_block,
            seed=self.seed,
            num_replicas=num_replicas,
            rank=rank,
            drop_last=self.drop_last,
        )

    def _evaluation_loader(self, split: Split) -> SampleLoader:
        num_replicas, rank = self.replicas()
        size = len(self.prepared(split))
        kind = EvaluationSampler if split == "predict" else OrderedRows
        size_or_runs: Any = (size,) if split == "predict" else size
        sampler: DistributedSampler[Any] = kind(
            size_or_runs, batch_size=self.batch_size, num_replicas=num_replicas, rank=rank
        )
        return self._loader(split, sampler)

    def _loader(self, split: Split, sampler: Any) -> SampleLoader:
        device = self.trainer.strategy.root_device.type if self.trainer else "cuda"
        rows = self.prepared(split).dataset
        assert isinstance(rows, TableRows)
        return SampleLoader(
            RowBatches(rows, self.batch_size),
            collate_fn=as_fetched,
            # Samplers hand out whole batches, but Lightning counts the rows of predictions itself.
            batch_size=self.batch_size if split == "predict" else None,
            sampler=sampler,
            num_workers=self.num_workers,
            pin_memory=device == "cuda" and torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0 and split in ("train", "val"),
            skipped=self.skipped,
            progress=self._progress,
        )
