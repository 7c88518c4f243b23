"""Several data sets as one, each labelled for some of the tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

import numpy as np

from mtl_core.data.batch import Sample
from mtl_core.data.datamodule import MultiTaskDataModule, SampleDataset, Split, Transform
from mtl_core.data.dataset import OnError, offered_tasks
from mtl_core.data.mixture import Mixing, MixtureSampler, mixing_shares
from mtl_core.data.sampler import TrainingSampler
from mtl_core.errors import ArgumentError, EmptySplitError, MissingTaskError, UnknownNameError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName

Batches = Literal["mixed", "alternating"]


class MultiSource(MultiTaskDataModule):
    """A data module made of data modules.

    Every sample carries ``tags["source"]``, the position of its source in `sources`, and targets of
    the tasks that its source offers; the others are unlabelled for it. In training, sources are
    drawn in fixed shares (`MixtureSampler`), all of them in one batch or one source per batch.
    ``mixed`` batches need inputs of one size. Evaluation is one loader over the validation (test,
    predict) sets of all sources, one after the other, each sample once and never two sources in one
    batch; metrics of a task are over all sources that offer it.

    Everything else is as in any data module: order and augmentation come from this module's seed,
    and a run resumes within an epoch. Of its sources it uses data sets and transforms; their own
    loader arguments (``batch_size``, ``num_workers``, ``seed``, ``on_error``) have no effect.

    Args:
        tasks: the declared tasks (linked from the top level of the config).
        sources: data modules by name, as factories that are given the tasks they offer. In YAML
            each is a ``class_path`` with ``init_args``, without ``tasks``.
        offers: names of the tasks that a source is labelled for, by source; all tasks where it has
            no entry.
        mixing: share of a source in an epoch: ``proportional`` to its size, ``uniform``, or
            ``temperature`` in between.
        temperature: of ``temperature`` mixing: 1 is proportional, larger is nearer to uniform.
        batches: ``mixed``, or ``alternating`` for one source per batch.
        batch_size: samples per process and step.
        num_workers: loader processes; 0 loads in the main process.
        seed: of shuffling, mixing and augmentation.
        on_error: what an unreadable file does: ``raise``, or ``skip`` and count it in `skipped`.
        drop_last: leave out the last training batch if it is incomplete.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        sources: dict[str, Callable[[Mapping[str, Task]], MultiTaskDataModule]],
        offers: dict[str, list[str]] | None = None,
        mixing: Mixing = "proportional",
        temperature: float | None = None,
        batches: Batches = "mixed",
        batch_size: int = 8,
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
        if not sources:
            raise ArgumentError("sources", "name at least one source", sources)
        if batches not in get_args(Batches):
            raise UnknownNameError("batches", batches, get_args(Batches))
        mixing_shares([1] * len(sources), mixing, temperature=temperature)
        offered = _offered(self.tasks, sources, offers or {})
        self.sources: dict[str, MultiTaskDataModule] = {}
        for name, factory in sources.items():
            source = factory({task: tasks[task] for task in offered[name]})
            if isinstance(source, MultiSource):
                raise ArgumentError(f"sources[{name!r}]", "be no MultiSource itself", "MultiSource")
            self.sources[name] = source
        self.mixing: Mixing = mixing
        self.temperature = temperature
        self.batches: Batches = batches

    def prepare_data(self) -> None:
        """Prepare every source."""
        for source in self.sources.values():
            source.prepare_data()

    def dataset(self, split: Split) -> SampleDataset:
        """The sources' data sets one after the other.

        Raises:
            EmptySplitError: a source has no samples in this split.
            MissingTaskError: a source lacks targets of a task that it offers (not asked of
                ``predict``).
        """
        parts = []
        for name, source in self.sources.items():
            source.trainer = self.trainer
            dataset = source.dataset(split)
            where = f"source {name!r} ({type(source).__name__})"
            if not len(dataset):
                raise EmptySplitError(split, where)
            if split != "predict":
                found = offered_tasks(dataset, source.tasks, on_error=self.on_error)
                for task in source.tasks:
                    if task not in found:
                        raise MissingTaskError(task, found, f"split {split!r} of {where}")
            parts.append(dataset)
        return Concatenation(parts, tasks=[list(source.tasks) for source in self.sources.values()])

    def transform(self, split: Split) -> Transform | None:
        """Every sample through its own source's transform."""
        return _BySource(tuple(source.transform(split) for source in self.sources.values()))

    def runs(self, dataset: SampleDataset) -> tuple[int, ...]:
        """One run of indices per source."""
        assert isinstance(dataset, Concatenation)
        return dataset.runs

    def training_sampler(self) -> TrainingSampler:
        """Sources in their shares."""
        runs = self.prepared("train").runs
        num_replicas, rank = self.replicas()
        return MixtureSampler(
            runs,
            shares=mixing_shares(runs, self.mixing, temperature=self.temperature),
            alternating=self.batches == "alternating",
            batch_size=self.batch_size,
            seed=self.seed,
            num_replicas=num_replicas,
            rank=rank,
            drop_last=self.drop_last,
        )


class Concatenation:
    """Data sets one after the other; samples carry their source and its targets only.

    Args:
        datasets: the sources' data sets.
        tasks: names of the tasks that each of them offers.
    """

    def __init__(
        self, datasets: Sequence[SampleDataset], *, tasks: Sequence[Iterable[TaskName]]
    ) -> None:
        self.datasets = tuple(datasets)
        self.offered = tuple(frozenset(names) for names in tasks)
        self.runs = tuple(len(dataset) for dataset in datasets)
        self.ends = tuple(accumulate(self.runs))

    @property
    def tasks(self) -> frozenset[TaskName]:
        """Names that any source offers."""
        return frozenset().union(*self.offered)

    def __len__(self) -> int:
        """Samples of all sources."""
        return self.ends[-1]

    def __getitem__(self, index: int) -> Sample:
        """Sample `index` of all, with ``tags["source"]``."""
        source = int(np.searchsorted(self.ends, index, side="right"))
        raw = self.datasets[source][index - self.ends[source] + self.runs[source]]
        offered = self.offered[source]
        targets = {name: target for name, target in raw["targets"].items() if name in offered}
        return {**raw, "targets": targets, "tags": {**raw.get("tags", {}), "source": source}}


@dataclass(frozen=True)
class _BySource:
    """Applies the transform of a sample's source."""

    transforms: tuple[Transform | None, ...]

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        transform = self.transforms[sample["tags"]["source"]]
        return sample if transform is None else transform(sample, generator)


def _offered(
    tasks: Mapping[TaskName, Task],
    sources: Iterable[str],
    offers: Mapping[str, Sequence[TaskName]],
) -> dict[str, list[TaskName]]:
    """Tasks of every source, in the order of `tasks`, after checking the names in `offers`."""
    for source, names in offers.items():
        if source not in sources:
            raise UnknownNameError("offers", source, sources)
        for name in names:
            if name not in tasks:
                raise UnknownNameError(f"offers[{source!r}]", name, tasks)
    offered = {
        source: [name for name in tasks if name in offers.get(source, tasks)] for source in sources
    }
    found = {name for names in offered.values() for name in names}
    for name in tasks:
        if name not in found:
            raise MissingTaskError(name, found, "any source (see `offers`)")
    return offered
