"""What data modules of published benchmarks share: fixed task names and an official division."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from mtl_core.data.datamodule import MultiTaskDataModule, SampleDataset, Split
from mtl_core.data.split import train_val_split
from mtl_core.errors import ArgumentError, MissingTaskError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.data.samples import ImageFolder


class BenchmarkDataModule(MultiTaskDataModule):
    """Base of data sets with an official training and validation part and no public test labels.

    The official validation part is the test split. It is the validation split too, unless
    `val_fraction` holds out a share of the training part for that.

    Args:
        tasks: the declared tasks, among `offered`.
        root: folder of the data set.
        val_fraction: share of the training part to validate on, or None.
        val_seed: of its choice.
        predict: any folder of images for ``predict``.
        batch_size: see `MultiTaskDataModule`, likewise the others below.
        num_workers: loader processes.
        seed: of shuffling and augmentation.
        on_error: ``raise`` or ``skip`` unreadable files.
        drop_last: leave out an incomplete last training batch.

    Raises:
        MissingTaskError: a declared task is not offered.
    """

    offered: ClassVar[tuple[str, ...]]
    """Names of the tasks that the data set has targets for."""

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        root: str | Path,
        val_fraction: float | None,
        val_seed: int,
        predict: str | Path | None,
        batch_size: int,
        num_workers: int,
        seed: int,
        on_error: Literal["raise", "skip"],
        drop_last: bool,
    ) -> None:
        super().__init__(
            tasks,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            on_error=on_error,
            drop_last=drop_last,
        )
        for name in self.tasks:
            if name not in self.offered:
                raise MissingTaskError(name, self.offered, type(self).__name__)
        self.root = Path(root)
        self.val_fraction, self.val_seed = val_fraction, val_seed
        self.predict = None if predict is None else Path(predict)

    @abstractmethod
    def labelled(self, split: Literal["train", "val"]) -> SampleDataset:
        """The official training or validation part."""

    def dataset(self, split: Split) -> SampleDataset:
        """The samples of a split, as the class describes them."""
        if split == "predict":
            if self.predict is None:
                raise ArgumentError("predict", "name a folder of images", None)
            return ImageFolder(self.predict)
        if split == "test":
            return self.labelled("val")
        if self.val_fraction is None:
            return self.labelled(split)
        parts = train_val_split(
            self.labelled("train"), fraction=self.val_fraction, seed=self.val_seed
        )
        return parts[split == "val"]
