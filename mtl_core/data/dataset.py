"""One split as loaders see it: samples read, checked and transformed, index by index."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from mtl_core.data.batch import Sample
from mtl_core.errors import EmptySplitError, MTLError, SampleSizeError, UnreadableFileError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName

Split = Literal["train", "val", "test", "predict"]
OnError = Literal["raise", "skip"]


class SampleDataset(Protocol):
    """A map-style data set of samples.

    It may have an attribute ``tasks``, the names that it has targets for (not necessarily in every
    sample); without it, samples are read until every declared task was found.
    """

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. A file that cannot be decoded raises `UnreadableFileError`."""


Transform = Callable[[Sample, np.random.Generator], Sample]
"""Turns a sample into network inputs; all its randomness comes from the generator."""

T = TypeVar("T")


class Fetched(NamedTuple, Generic[T]):
    """What a loader process hands over; errors as values, because raising loses their type."""

    value: T | None
    """A sample or a batch; None where there was nothing to load or an error stopped it."""
    skipped: tuple[str, ...] = ()
    """Paths of the unreadable files passed over."""
    error: MTLError | None = None


@dataclass(frozen=True, kw_only=True)
class SplitDataset(Dataset[Fetched[Sample]]):
    """A split of a data module.

    Unreadable files under ``on_error: skip``: in training the next readable sample of the same run
    takes the place, which keeps batches full; in evaluation the sample is left out, which counts
    nothing twice.

    Args:
        dataset: the samples.
        split: which split they are.
        tasks: the declared tasks; targets of others are dropped.
        transform: applied to every sample, None for none.
        seed: of augmentation. Sample i in epoch e gets a generator seeded by (seed, e, i).
        on_error: ``raise`` or ``skip``.
        runs: lengths of the consecutive runs of indices that belong together.
    """

    dataset: SampleDataset
    split: Split
    tasks: Mapping[TaskName, Task]
    transform: Transform | None
    seed: int
    on_error: OnError
    runs: tuple[int, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int] | None) -> Fetched[Sample]:
        """Entry of a sampler: an index (epoch 0), an (epoch, index) pair, or None for nothing."""
        if index is None:
            return Fetched(None)
        epoch, index = index if isinstance(index, tuple) else (0, index)
        skipped: list[str] = []
        for candidate in self._candidates(index):
            try:
                return Fetched(self.sample(candidate, epoch=epoch), tuple(skipped))
            except UnreadableFileError as error:
                if self.on_error == "raise":
                    return Fetched(None, error=error)
                skipped.append(str(error.path))
            except MTLError as error:
                return Fetched(None, tuple(skipped), error)
        if self.split == "train":
            where = f"readable files ({len(skipped)} skipped, among them {skipped[0]})"
            return Fetched(None, tuple(skipped), EmptySplitError(self.split, where))
        return Fetched(None, tuple(skipped))

    def sample(self, index: int, *, epoch: int = 0) -> Sample:
        """Sample `index` as the network gets it in `epoch`.

        Raises:
            UnreadableFileError: a file of the sample cannot be decoded.
            SampleSizeError: the map of a dense task differs from the image in height or width.
        """
        raw = self.dataset[index]
        sample: Sample = {**raw, "targets": self._declared(raw["targets"])}
        if "valid" in raw:
            sample["valid"] = self._declared(raw["valid"])
        if "group" in raw:
            sample["group"] = self._declared(raw["group"])
        sample.setdefault("key", f"{self.split}[{index}]")
        check_sizes(sample, self.tasks)
        if self.transform is None:
            return sample
        return self.transform(sample, np.random.default_rng((self.seed, epoch, index)))

    def _declared(self, entries: Mapping[TaskName, Any]) -> dict[TaskName, Any]:
        return {name: entries[name] for name in self.tasks if entries.get(name) is not None}

    def _candidates(self, index: int) -> Iterator[int]:
        """The index; in training then those that may take its place."""
        yield index
        if self.split != "train":
            return
        first = 0
        for length in self.runs:
            if first <= index < first + length:
                yield from range(index + 1, first + length)
                yield from range(first, index)
            first += length


def check_sizes(sample: Sample, tasks: Mapping[TaskName, Task]) -> None:
    """Refuse maps of dense tasks that do not lie on the image. Inputs by name are not compared."""
    image = sample["inputs"]
    if isinstance(image, Mapping):
        return
    size = _plane(image)
    for name, target in sample["targets"].items():
        if tasks[name].dense and _plane(target) != size:
            raise SampleSizeError(name, _plane(target), size, sample.get("key", ""))


def _plane(array: Any) -> tuple[int, ...]:
    """Height and width: first axes of an array (H, W, ...), last axes of a tensor (..., H, W)."""
    return tuple(array.shape[-2:]) if isinstance(array, Tensor) else np.shape(array)[:2]


def offered_tasks(
    dataset: SampleDataset, wanted: Collection[TaskName], *, on_error: OnError = "raise"
) -> set[TaskName]:
    """Names that a data set has targets for: its own declaration, else what its samples show.

    Samples are read in an order spread over the whole set, because labels often come in blocks, and
    only until all of `wanted` were found.
    """
    declared = getattr(dataset, "tasks", None)
    if declared is not None:
        return set(declared)
    found: set[TaskName] = set()
    for index in np.random.default_rng(0).permutation(len(dataset)):
        try:
            targets = dataset[int(index)]["targets"]
        except UnreadableFileError:
            if on_error == "raise":
                raise
            continue
        found |= {name for name, target in targets.items() if target is not None}
        if found.issuperset(wanted):
            break
    return found
