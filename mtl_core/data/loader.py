"""Batches collated and checked in the loader process, counted and resumed in the main one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mtl_core.data.batch import Batch, Sample, collate
from mtl_core.data.dataset import Fetched, Split
from mtl_core.data.sampler import TrainingSampler
from mtl_core.errors import ArgumentError, EmptySplitError, LabelError, MTLError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName


@dataclass(frozen=True)
class CheckedCollate:
    """Stacks samples into a batch and checks it against the tasks.

    Args:
        tasks: the declared tasks.
    """

    tasks: Mapping[TaskName, Task]

    def __call__(self, items: Sequence[Fetched[Sample]]) -> Fetched[Batch]:
        """The batch of what was loaded; no batch where nothing was, or where something is wrong."""
        skipped = tuple(path for item in items for path in item.skipped)
        for item in items:
            if item.error is not None:
                return Fetched(None, skipped, item.error)
        samples = [item.value for item in items if item.value is not None]
        if not samples:
            return Fetched(None, skipped)
        try:
            batch = collate(samples)
            check_batch(batch, self.tasks)
        except LabelError as error:
            where = error.where or _listing([sample.get("key", "") for sample in samples])
            return Fetched(None, skipped, LabelError(error.task, error.rule, error.found, where))
        except MTLError as error:
            return Fetched(None, skipped, error)
        return Fetched(batch, skipped)


def check_batch(batch: Batch, tasks: Mapping[TaskName, Task]) -> None:
    """Refuse NaN in the inputs and target values that a task does not allow.

    Raises:
        ArgumentError: an input is NaN; the samples are named.
        LabelError: a labelled target breaks its task's rule; the task and the samples are named.
    """
    keys = batch.get("keys", [])
    inputs = batch["inputs"]
    named = {"inputs": inputs} if isinstance(inputs, Tensor) else inputs
    for name, tensor in named.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            bad = tensor.isnan().reshape(len(tensor), -1).any(1)
            argument = "inputs" if isinstance(inputs, Tensor) else f"inputs[{name!r}]"
            raise ArgumentError(argument, "hold no NaN", f"NaN in {_chosen(keys, bad)}")
    for name, target in batch["targets"].items():
        labelled = batch.get("labelled", {}).get(name)
        known = target if labelled is None else target[labelled]
        try:
            tasks[name].check(known)
        except LabelError as error:
            bad = torch.tensor([not _passes(tasks[name], row) for row in torch.split(target, 1)])
            if labelled is not None:
                bad &= labelled
            raise LabelError(name, error.rule, error.found, _chosen(keys, bad)) from error


def _passes(task: Task, target: Tensor) -> bool:
    try:
        task.check(target)
    except LabelError:
        return False
    return True


def _chosen(keys: Sequence[str], chosen: Tensor) -> str:
    """The chosen rows by key, or by position where keys do not tell them apart."""
    rows = chosen.nonzero().flatten().tolist()
    return _listing([keys[row] if len(keys) == len(chosen) else f"row {row}" for row in rows])


def _listing(names: Sequence[str]) -> str:
    return f"samples {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"


@runtime_checkable
class HasSplit(Protocol):
    """A data set that says which split it is: a `SplitDataset`, or one that makes whole batches."""

    @property
    def split(self) -> Split:
        """The split."""


class SampleLoader(DataLoader[Any]):
    """A `DataLoader` that raises the suite's errors, counts skips and resumes within an epoch.

    Lightning saves `state_dict` with a checkpoint and calls `load_state_dict` when it resumes in
    the middle of an epoch. The position itself is the trainer's count of finished batches, not a
    count of what was loaded: it is right with any prefetching, and after an exception in a step.

    ``len`` is always that of the whole epoch, as Lightning's progress expects.

    Args:
        dataset: the split.
        collate_fn: stacks what the split gives; with ``batch_size=None``, where sampler and data
            set deal in whole batches, it is handed each of them.
        batch_size: samples per process and step; None with `batch_sampler`.
        shuffle: kept for Lightning, which rebuilds loaders by torch's signature; the sampler
            decides.
        sampler: which samples, in which order.
        batch_sampler: in place of `sampler`, as Lightning sets it for prediction.
        drop_last: leave out an incomplete last batch.
        num_workers: loader processes.
        pin_memory: page-locked batches, for CUDA.
        persistent_workers: keep the loader processes between epochs.
        skipped: counts by path; added to when a batch is handed out.
        progress: epoch of a running fit and the number of its batches that are already trained on;
            None outside a fit.
    """

    def __init__(
        self,
        dataset: HasSplit,
        *,
        collate_fn: Callable[[Any], Fetched[Batch]],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        skipped: dict[str, int] | None = None,
        progress: Callable[[], tuple[int, int] | None] = lambda: None,
    ) -> None:
        super().__init__(
            cast("Dataset[Any]", dataset),
            batch_size=batch_size,
            shuffle=shuffle,
            sampler=sampler,
            batch_sampler=batch_sampler,
            drop_last=drop_last,
            num_workers=num_workers,
            collate_fn=collate_fn,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers,
            # Seeds of the worker processes would otherwise be drawn from the generator of dropout,
            # at moments that a resumed run does not repeat.
            generator=torch.Generator(),
        )
        self.skipped = {} if skipped is None else skipped
        self.progress = progress
        self._resumed_from: dict[str, Any] | None = None

    @property
    def split(self) -> Split:
        """The split that is loaded."""
        assert isinstance(self.dataset, HasSplit)
        return self.dataset.split

    def state_dict(self) -> dict[str, Any]:
        """What has to be equal for a position within an epoch to mean the same samples."""
        return self.sampler.signature() if isinstance(self.sampler, TrainingSampler) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start the next iteration behind the batches that the trainer has finished."""
        self._resumed_from = dict(state)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator, so that nothing starts before the first batch is asked for: Lightning creates
        # the first iterator of a run before it has restored all counters.
        epoch, passed = self._position()
        if isinstance(self.sampler, TrainingSampler):
            if epoch is not None:
                # Lightning sets an epoch itself, but counts one too many after resuming from an
                # epoch's end with max_steps.
                self.sampler.set_epoch(epoch)
            self.sampler.start_batch, passed = passed, 0
        handed_out, skips = False, 0
        loaded = super().__iter__()
        for fetched in loaded:
            for path in fetched.skipped:
                self.skipped[path] = self.skipped.get(path, 0) + 1
            skips += len(fetched.skipped)
            if fetched.error is not None:
                self._end_workers(loaded)
                error = fetched.error
                try:
                    raise error
                finally:  # no cycle of error and frame
                    del error, fetched
            if passed:  # a sampler that is not ours (overfit_batches) cannot start late
                passed -= 1
            elif fetched.value is not None:
                handed_out = True
                yield fetched.value
        if skips and not handed_out:
            raise EmptySplitError(self.split, f"readable files ({skips} skipped)")

    def _end_workers(self, loaded: object) -> None:
        """End the loader processes now: left to the garbage collector, each takes five seconds."""
        if isinstance(loaded, _MultiProcessingDataLoaderIter):
            loaded._shutdown_workers()
        self._iterator = None

    def _position(self) -> tuple[int | None, int]:
        """Epoch of the running fit; batches to leave out of it, once after a resume."""
        progress = self.progress()
        saved, self._resumed_from = self._resumed_from, None
        if progress is None:
            return None, 0
        epoch, finished = progress
        if saved is None or not finished:
            return epoch, 0
        now = self.state_dict()
        for name, value in saved.items():
            if now.get(name) != value:
                raise ArgumentError(
                    f"data ({name})",
                    f"be as in the checkpoint ({value}) to resume within an epoch",
                    now.get(name),
                )
        return epoch, finished
