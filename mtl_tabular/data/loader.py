"""Orders of rows, handed out a batch at a time as arrays."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler

from mtl_core.data.sampler import ShuffleSampler, order_generator
from mtl_core.errors import ArgumentError


class ShuffledRows(ShuffleSampler):
    """`ShuffleSampler` that yields a batch's positions (B,) at once.

    Order, shares of processes and resuming are those of `TrainingSampler`.

    Args:
        size: rows of an epoch.
        batch_size: B, rows per process and step.
        block: rows are shuffled within blocks of so many consecutive rows, and blocks among each
            other, so that a batch comes from a few places of the disk; 0 shuffles all rows. Rows
            that lie together in the table then stay close in time: sort it by nothing that matters.
        seed: of the order.
        num_replicas: processes that share the rows.
        rank: index of this process.
        drop_last: leave out a last step with fewer rows than the others.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        block: int = 0,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            size,
            batch_size=batch_size,
            seed=seed,
            num_replicas=num_replicas,
            rank=rank,
            drop_last=drop_last,
        )
        if block < 0:
            raise ArgumentError("shuffle_block", "be at least 0", block)
        self.block = block

    def order(self) -> NDArray[np.int64]:
        """The global order of the current epoch."""
        if not self.block:
            return super().order()
        generator = order_generator(self.seed, self.epoch)
        starts = np.arange(0, self.size, self.block)
        pieces = [
            first + generator.permutation(min(self.block, self.size - first))
            for first in generator.permutation(starts)
        ]
        return np.concatenate(pieces).astype(np.int64)

    def signature(self) -> dict[str, int]:
        """What has to be equal for a position within an epoch to mean the same rows."""
        return {**super().signature(), "shuffle_block": self.block}

    def __len__(self) -> int:
        """Batches of this process in a whole epoch."""
        return -(-super().__len__() // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:  # type: ignore[override]
        start, self.start_batch = self.start_batch * self.batch_size, 0
        order = np.resize(self.order(), self.kept)[self.rank :: self.num_replicas]
        for first in range(start, len(order), self.batch_size):
            yield order[first : first + self.batch_size]


class OrderedRows(DistributedSampler[NDArray[np.int64]]):
    """All rows in order, each in exactly one process, a batch's positions (B,) at a time.

    Args:
        size: number of rows.
        batch_size: B, rows per process and step.
        num_replicas: processes that share the rows.
        rank: index of this process.
    """

    def __init__(self, size: int, *, batch_size: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(_Length(size), num_replicas=num_replicas, rank=rank, shuffle=False)
        self.batch_size = batch_size
        self.positions = np.arange(rank, size, num_replicas)

    def __len__(self) -> int:
        """Batches of this process."""
        return -(-len(self.positions) // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for first in range(0, len(self.positions), self.batch_size):
            yield self.positions[first : first + self.batch_size]


class _Length(Dataset[int]):
    """All that a sampler needs to know of a data set."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length
