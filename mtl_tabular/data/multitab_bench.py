"""MultiTab-Bench as a data module: generated rows, nothing to download."""

from collections.abc import Mapping, Sequence

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_tabular.data.readers import TableSource
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.data.synthetic import Part, SyntheticTable
from mtl_tabular.data.synthetic_spec import Kind, Layout, SyntheticSpec
from mtl_tabular.data.table import TableDataModule
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget, TargetColumn

KINDS: dict[str, type[TargetColumn]] = {
    "numeric": NumericTarget,
    "binary": BinaryTarget,
    "multiclass": MulticlassTarget,
}
"""Record by kind of task."""


class MultiTabBench(TableDataModule):
    """A generated table with columns ``task1``..``taskT``, ``x1``.. and ``c1``...

    Relatedness, number and difficulty of the tasks are known, see `SyntheticSpec`. The three splits
    are independent draws of one problem. Undeclared tasks exist all the same: a run that declares
    ``task3`` alone sees the rows and labels that it has in a run of all tasks.

    With ``layout="long"`` a row is labelled for one task only; the table still has a column a task.

    Rows are made on first use and held in memory (about 4 bytes a number, twice during set-up). For
    more rows, write Parquet with `SyntheticTable.write_parquet` and read it with `TableDataModule`.

    Args:
        tasks: records by name, any of ``task1``..``taskT``; their kinds have to be those of
            `kinds`.
        num_tasks: see `SyntheticSpec`, as for the next eighteen.
        num_features: likewise.
        correlation: likewise.
        degrees: likewise.
        noise: likewise.
        relative_noise: likewise.
        kinds: likewise.
        positives: likewise.
        classes: likewise.
        num_categorical: likewise.
        levels: likewise.
        num_distractors: likewise.
        missing_labels: likewise.
        missing_values: likewise.
        layout: likewise.
        standardize_labels: likewise (``standardize``). `NumericTarget` standardises its labels by
            itself unless told otherwise.
        train_size: training rows.
        val_size: validation rows; 0 for none.
        test_size: test rows, which are also those to predict.
        data_seed: of the problem and its rows.
        schema: columns as learned by an earlier `fit`.
        batch_size: rows per process and step.
        num_workers: loader processes.
        seed: of shuffling.
        drop_last: leave out the last training batch if it is incomplete.

    Raises:
        ArgumentError: an argument breaks its rule, or a task is of another kind than its column.
        UnknownNameError: a task is none of the table's columns.

    Example:
        >>> data = MultiTabBench({"task2": NumericTarget()}, train_size=64, batch_size=16)
        >>> data.fit()
        >>> data.setup("fit")
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["inputs"]["numeric"].shape, batch["targets"]["task2"].shape
        (torch.Size([16, 32]), torch.Size([16]))
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        num_tasks: int = 7,
        num_features: int = 32,
        correlation: float | list[list[float]] = 0.4,
        degrees: int | Sequence[int] = (1, 3, 2, 3, 4, 2, 3),
        noise: float | Sequence[float] = 0.01,
        relative_noise: bool = False,
        kinds: Kind | Sequence[Kind] = "numeric",
        positives: float | Sequence[float] = 0.5,
        classes: int | Sequence[int] = 4,
        num_categorical: int = 0,
        levels: int = 8,
        num_distractors: int = 0,
        missing_labels: float | Sequence[float] = 0.0,
        missing_values: float = 0.0,
        layout: Layout = "wide",
        standardize_labels: bool = True,
        train_size: int = 40_960,
        val_size: int = 8192,
        test_size: int = 8192,
        data_seed: int = 0,
        schema: TableSchema = NO_COLUMNS,
        batch_size: int = 2048,
        num_workers: int = 0,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.spec = SyntheticSpec(
            num_tasks=num_tasks,
            num_features=num_features,
            correlation=correlation,
            degrees=degrees,
            noise=noise,
            relative_noise=relative_noise,
            standardize=standardize_labels,
            kinds=kinds,
            positives=positives,
            classes=classes,
            num_categorical=num_categorical,
            levels=levels,
            num_distractors=num_distractors,
            missing_labels=missing_labels,
            missing_values=missing_values,
            layout=layout,
        )
        for name, size, least in (
            ("train_size", train_size, 1),
            ("val_size", val_size, 0),
            ("test_size", test_size, 1),
        ):
            if size < least:
                raise ArgumentError(name, f"be at least {least}", size)
        self.generator = SyntheticTable(self.spec, seed=data_seed)
        # Columns without rows; `_source` draws the rows when they are needed.
        columns = self.generator.draw(0).frame()
        super().__init__(
            tasks,
            table=columns,
            val=columns if val_size else None,
            test=columns,
            schema=schema,
            features=[*self.spec.categorical_names, *self.spec.numeric_names],
            val_fraction=0.0,
            test_fraction=0.0,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            drop_last=drop_last,
        )
        self.lengths: dict[str, tuple[Part, int]] = {
            "table": ("train", train_size),
            "val": ("val", val_size),
            "test": ("test", test_size),
        }
        self._check_kinds()

    def _check_kinds(self) -> None:
        kinds = dict(zip(self.spec.task_names, self.spec.task_kinds, strict=True))
        for name, task in self.tasks.items():
            column = task.column or name
            if column not in kinds:
                raise UnknownNameError(f"column of task {name!r}", column, kinds)
            wanted = KINDS[kinds[column]]
            if not isinstance(task, wanted):
                raise ArgumentError(
                    f"task {name!r}",
                    f"be a {wanted.__name__}, its column being {kinds[column]}",
                    type(task).__name__,
                )

    def _source(self, name: str) -> TableSource:
        if name not in self._sources:
            part, rows = self.lengths[name]
            self._sources[name] = TableSource(self.generator.draw(rows, part).frame())
        return self._sources[name]
