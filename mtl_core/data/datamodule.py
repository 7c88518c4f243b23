"""Splits, loaders and checks: the base of every data module."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, get_args

import lightning as L
import torch
from torch.utils.data import Sampler

from mtl_core.data.dataset import (
    OnError,
    SampleDataset,
    Split,
    SplitDataset,
    Transform,
    offered_tasks,
)
from mtl_core.data.loader import CheckedCollate, SampleLoader
from mtl_core.data.sampler import EvaluationSampler, ShuffleSampler, TrainingSampler
from mtl_core.errors import ArgumentError, EmptySplitError, MissingTaskError, UnknownNameError
from mtl_core.tasks.base import Task, check_tasks
from mtl_core.types import TaskName

__all__ = ["MultiTaskDataModule", "SampleDataset", "Split", "Transform"]

_SPLITS: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


class MultiTaskDataModule(L.LightningDataModule, ABC):
    """Base of the data modules: subclasses give data sets and transforms, this class the loaders.

    Training order and augmentation depend on the seed, the epoch and the sample's index only: not
    on the number of workers or processes, nor on whether the run was stopped and resumed, also
    within an epoch. Step s of R processes with batch size B sees the samples of step s of one
    process with batch size B·R. Evaluation sees every sample once, augmented as in epoch 0.

    A sample may lack targets of some tasks, a split may not. Targets of undeclared tasks are
    dropped. Batches are checked where they are collated: values by `Task.check`, inputs for NaN.

    Args:
        tasks: the declared tasks (linked from the top level of the config).
        batch_size: samples per process and step.
        num_workers: loader processes; 0 loads in the main process.
        seed: of shuffling and augmentation. Sample i of epoch e is augmented the same whatever the
            number of workers, processes and restarts.
        on_error: what an unreadable file does: ``raise``, or ``skip`` it and count it in `skipped`.
            In training the next readable sample takes its place; in evaluation the batch is
            shorter.
        drop_last: leave out the last training batch if it is incomplete. Networks with batch
            normalisation over vectors cannot train on a last batch of one sample, which this
            avoids.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        on_error: OnError = "raise",
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_tasks(tasks)
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ArgumentError(name, f"be at least {least}", value)
        if on_error not in get_args(OnError):
            raise UnknownNameError("on_error", on_error, get_args(OnError))
        self.tasks = dict(tasks)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.on_error: OnError = on_error
        self.drop_last = drop_last
        self.skipped: dict[str, int] = {}
        """How often this process passed over each unreadable file, by path."""
        self._splits: dict[Split, SplitDataset] = {}

    @abstractmethod
    def dataset(self, split: Split) -> SampleDataset:
        """The data set of a split, without transforms. Called once per split, in `setup`."""

    def transform(self, split: Split) -> Transform | None:
        """Turns a sample into network inputs, given a generator seeded for (seed, epoch, index).

        Asked for once per split, after `dataset`. Default none.
        """
        return None

    def runs(self, dataset: SampleDataset) -> tuple[int, ...]:
        """Lengths of the consecutive runs of indices that share a source. Default: one run."""
        return (len(dataset),)

    def prepared(self, split: Split) -> SplitDataset:
        """The samples of a split as the network gets them, built and checked on first use.

        Raises:
            EmptySplitError: the split holds no samples.
            MissingTaskError: no sample of it has targets of a declared task (not asked of
                ``predict``).
        """
        if split not in self._splits:
            dataset = self.dataset(split)
            where = f"split {split!r} of {type(self).__name__}"
            if not len(dataset):
                raise EmptySplitError(split, type(self).__name__)
            if split != "predict":
                offered = offered_tasks(dataset, self.tasks, on_error=self.on_error)
                for name in self.tasks:
                    if name not in offered:
                        raise MissingTaskError(name, offered, where)
            self._splits[split] = SplitDataset(
                dataset=dataset,
                split=split,
                tasks=self.tasks,
                transform=self.transform(split),
                seed=self.seed,
                on_error=self.on_error,
                runs=self.runs(dataset),
            )
        return self._splits[split]

    def setup(self, stage: str | None = None) -> None:
        """Build and check the splits that a stage needs."""
        for split in get_args(Split) if stage is None else _SPLITS[stage]:
            self.prepared(split)

    def replicas(self) -> tuple[int, int]:
        """Number of processes that share every step's samples, and the rank of this one."""
        shared = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return (shared["num_replicas"], shared["rank"]) if shared else (1, 0)

    def training_sampler(self) -> TrainingSampler:
        """Order of the training samples. Default: all of them once per epoch, shuffled."""
        num_replicas, rank = self.replicas()
        return ShuffleSampler(
            len(self.prepared("train")),
            batch_size=self.batch_size,
            seed=self.seed,
            num_replicas=num_replicas,
            rank=rank,
            drop_last=self.drop_last,
        )

    def train_dataloader(self) -> SampleLoader:
        """Shuffled, augmented batches. Without a trainer, call ``loader.sampler.set_epoch``."""
        return self._loader("train", self.training_sampler())

    def val_dataloader(self) -> SampleLoader:
        """Validation batches in order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> SampleLoader:
        """Test batches in order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> SampleLoader:
        """Batches to predict, in order; targets are optional."""
        return self._evaluation_loader("predict")

    def _evaluation_loader(self, split: Split) -> SampleLoader:
        num_replicas, rank = self.replicas()
        sampler = EvaluationSampler(
            self.prepared(split).runs,
            batch_size=self.batch_size,
            num_replicas=num_replicas,
            rank=rank,
        )
        return self._loader(split, sampler)

    def _loader(self, split: Split, sampler: Sampler[Any]) -> SampleLoader:
        device = self.trainer.strategy.root_device.type if self.trainer else "cuda"
        return SampleLoader(
            self.prepared(split),
            collate_fn=CheckedCollate(self.tasks),
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=split == "train" and self.drop_last,
            num_workers=self.num_workers,
            pin_memory=device == "cuda" and torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0 and split in ("train", "val"),
            skipped=self.skipped,
            progress=self._progress,
        )

    def _progress(self) -> tuple[int, int] | None:
        """Epoch of the running fit and how many of its batches are finished."""
        if self.trainer is None or not self.trainer.training:
            return None
        finished = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return self.trainer.current_epoch, finished

    def state_dict(self) -> dict[str, Any]:
        """Counts of skipped files, so that a resumed run goes on counting."""
        return {"skipped": dict(self.skipped)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts; loaders share the mapping, so it is updated in place."""
        self.skipped.clear()
        self.skipped.update(state_dict["skipped"])
