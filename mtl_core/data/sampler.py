"""Which samples a process sees, in which order, from which batch on."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler

from mtl_core.errors import ArgumentError, EmptySplitError


class TrainingSampler(DistributedSampler[tuple[int, int]], ABC):
    """A seeded order of ``(epoch, index)`` pairs, dealt to the processes step by step.

    One global order per epoch is dealt out in turn: process r of R takes positions r, r + R, r +
    2R, ... Step s of all processes together is therefore positions s·B·R to (s + 1)·B·R of the
    order, which is also what step s of one process with batch size B·R sees. The order depends on
    the seed and the epoch only, and an epoch can start at any batch, so a resumed run goes on where
    it stopped.

    The pairs carry the epoch to loader workers that outlive it, where augmentation needs it.

    A subclass of torch's `DistributedSampler`, so that Lightning leaves it in place. Where the last
    step has fewer samples than there are processes, the first samples of the order are repeated in
    it, so that no process waits for another; nothing else is ever repeated.

    Args:
        size: length of one epoch's global order.
        batch_size: B, samples per process and step.
        seed: of the order.
        num_replicas: R, processes that share the samples.
        rank: index r of this process.
        drop_last: leave out a last step with fewer than B·R samples.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        if not 0 <= rank < num_replicas:
            raise ArgumentError("rank", f"lie in 0..{num_replicas - 1}", rank)
        if size < 1:
            raise EmptySplitError("train", type(self).__name__)
        super().__init__(
            _Length(size), num_replicas=num_replicas, rank=rank, seed=seed, drop_last=drop_last
        )
        self.size = size
        self.batch_size = batch_size
        self.start_batch = 0
        """Batch at which the next iteration, and only that one, starts."""
        rest = size % self.step
        self.kept = size
        if drop_last:
            self.kept = size - rest
        elif 0 < rest < num_replicas:
            self.kept = size - rest + num_replicas
        if not self.kept:
            raise ArgumentError(
                "batch_size", f"be at most {size // num_replicas} with drop_last", batch_size
            )

    @property
    def step(self) -> int:
        """Samples that all processes see together in one step, B·R."""
        return self.batch_size * self.num_replicas

    @abstractmethod
    def order(self) -> NDArray[np.int64]:
        """The global order of the current epoch, (`size`,) indices."""

    def signature(self) -> dict[str, int]:
        """What has to be equal for a position within an epoch to mean the same samples."""
        return {"samples": self.size, "samples per step": self.step, "seed": self.seed}

    def __len__(self) -> int:
        """Samples of this process in a whole epoch, wherever the next iteration starts."""
        return len(range(self.rank, self.kept, self.num_replicas))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start, self.start_batch = self.start_batch * self.batch_size, 0
        indices = np.resize(self.order(), self.kept)[self.rank :: self.num_replicas][start:]
        return iter([(self.epoch, int(index)) for index in indices])


class ShuffleSampler(TrainingSampler):
    """Every sample once per epoch, in an order drawn from the seed and the epoch."""

    def order(self) -> NDArray[np.int64]:
        """A permutation of 0..size-1."""
        return order_generator(self.seed, self.epoch).permutation(self.size)


class EvaluationSampler(DistributedSampler[int | None]):
    """All samples in order, each in exactly one process: none is counted twice.

    Shares of the processes may differ by one sample per run. Where indices fall into several runs
    (the sources of a `MultiSource`), a batch never holds samples of two runs, whose sizes may
    differ: shares are filled up with None, which loads nothing.

    Args:
        runs: lengths of the consecutive runs of indices; one entry for an ordinary data set.
        batch_size: samples per process and step.
        num_replicas: processes that share the samples.
        rank: index of this process.
    """

    def __init__(
        self, runs: Sequence[int], *, batch_size: int, num_replicas: int = 1, rank: int = 0
    ) -> None:
        if not 0 <= rank < num_replicas:
            raise ArgumentError("rank", f"lie in 0..{num_replicas - 1}", rank)
        super().__init__(
            _Length(sum(runs)), num_replicas=num_replicas, rank=rank, shuffle=False, seed=0
        )
        self.indices: list[int | None] = []
        first = 0
        for length in runs:
            if self.indices:
                self.indices += [None] * (-len(self.indices) % batch_size)
            self.indices += range(first + rank, first + length, num_replicas)
            first += length

    def __len__(self) -> int:
        """Entries of this process, those that load nothing included."""
        return len(self.indices)

    def __iter__(self) -> Iterator[int | None]:
        return iter(self.indices)


class _Length(Dataset[int]):
    """All that a sampler needs to know of a data set."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


def order_generator(seed: int, epoch: int, *, stream: int = 0) -> np.random.Generator:
    """Generator of an order. The spawn key keeps it apart from the generators of augmentation."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(stream,)))
