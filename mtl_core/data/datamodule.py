"""Splits, loaders and checks: the base of every data module."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, Literal, Protocol

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset

from mtl_core.data.batch import Batch, Sample
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName

Split = Literal["train", "val", "test", "predict"]

class SampleDataset(Protocol):
    """A map-style data set of samples. `tasks` are the names it has targets for."""
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...

Transform = Callable[[Sample, np.random.Generator], Sample]

class MultiTaskDataModule(L.LightningDataModule, ABC):
    """Base of the data modules: subclasses give data sets and transforms, this class the loaders.

    Args:
        tasks: the declared tasks (linked from the top level of the config).
        batch_size: samples per process and step.
        num_workers: loader processes; 0 loads in the main process.
        seed: of shuffling and augmentation. Sample i of epoch e is augmented the same whatever the number
            of workers, processes and restarts.
        on_error: what an unreadable file does: ``raise``, or ``skip`` it and count it in `skipped`.
    """

    def __init__(self, tasks: Mapping[TaskName, Task], *, batch_size: int = 8, num_workers: int = 0,
                 seed: int = 0, on_error: Literal["raise", "skip"] = "raise") -> None: ...

    @abstractmethod
    def dataset(self, split: Split) -> SampleDataset:
        """The data set of a split, without transforms. Called once per split, in `setup`."""

    def transform(self, split: Split) -> Transform | None:
        """Turns a sample into network inputs, given a generator seeded for (seed, epoch, index). Default none."""
        return None
