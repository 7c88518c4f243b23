"""Encoded rows of a table, in memory or on disk, and batches cut from them in one go."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mtl_core.data.batch import Batch, Sample
from mtl_core.data.dataset import Fetched, Split
from mtl_tabular.data.targets import Arrays, TargetLayout


class TableRows:
    """The rows of one split: a `SampleDataset` that also gives whole batches.

    Args:
        arrays: blocks of the whole table, see `TargetLayout` for those of targets. ``numeric``
            (N, d_num) float32, ``categorical`` (N, d_cat) unsigned integers.
        chosen: rows of the table that belong to the split, in order; None for all.
        layout: of the targets; None where the rows have none.
        split: which split it is.
    """

    def __init__(
        self,
        arrays: Arrays,
        chosen: NDArray[np.int64] | None,
        layout: TargetLayout | None,
        split: Split,
    ) -> None:
        self.arrays = dict(arrays)
        self.chosen = chosen
        self.layout = layout
        self.split: Split = split
        self.size = len(next(iter(arrays.values()))) if chosen is None else len(chosen)
        self.counts: dict[str, int] = {}
        """Labelled rows by task."""
        if layout is not None and self.size:
            targets: Arrays = {}
            for name in ("labelled", "level"):
                if name in arrays:
                    targets[name] = arrays[name] if chosen is None else arrays[name][chosen]
            self.counts = layout.counts(targets)
            if targets["labelled"].all():
                del self.arrays["labelled"]
        self.tasks = [name for name, count in self.counts.items() if count]
        """Names of the tasks that the split offers: those with a label in some row."""

    def __len__(self) -> int:
        """Number of rows."""
        return self.size

    def batch(self, positions: NDArray[np.int64]) -> Batch:
        """The rows at these positions of the split, in this order.

        ``labelled`` is there for tasks that lack a label in some of them; a task without any label
        has no targets. ``keys`` are there for prediction only: numbers of rows in the table, from
        0, as text.
        """
        rows = positions if self.chosen is None else self.chosen[positions]
        taken = {n: np.take(np.asarray(a), rows, axis=0) for n, a in self.arrays.items()}
        inputs: dict[str, Tensor] = {}
        if "numeric" in taken:
            inputs["numeric"] = torch.from_numpy(taken["numeric"])
        if "categorical" in taken:
            inputs["categorical"] = torch.from_numpy(taken["categorical"].astype(np.int64))
        batch: Batch = {"inputs": inputs, "targets": {}}
        if self.layout is not None:
            batch["targets"], masks = self.layout.batch(taken)
            if masks:
                batch["labelled"] = masks
        if self.split == "predict":
            batch["keys"] = [str(row) for row in rows.tolist()]
        return batch

    def __getstate__(self) -> dict[str, Any]:
        """Mapped arrays travel to worker processes as names of files, not as their content."""
        arrays = {n: a.filename if isinstance(a, np.memmap) else a for n, a in self.arrays.items()}
        return {**self.__dict__, "arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name, array in self.arrays.items():
            if not isinstance(array, np.ndarray):
                self.arrays[name] = np.load(array, mmap_mode="r")

    def __getitem__(self, index: int) -> Sample:
        """One row, for data modules that mix several sources."""
        batch = self.batch(np.array([index]))
        inputs = batch["inputs"]
        assert not isinstance(inputs, Tensor)
        row = index if self.chosen is None else int(self.chosen[index])
        return {
            "inputs": {name: tensor[0] for name, tensor in inputs.items()},
            "targets": {name: target[0] for name, target in batch["targets"].items()},
            "key": str(row),
        }


class RowBatches(Dataset[Fetched[Batch]]):
    """A split as a data set of batches, for a loader that does no batching of its own.

    Args:
        rows: the split.
        batch_size: rows of a batch.
    """

    def __init__(self, rows: TableRows, batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.split: Split = rows.split

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, entry: Any) -> Fetched[Batch]:
        """What a `RowSampler` yields, positions of rows; or the batch at a position in order.

        The latter is what samplers ask for that Lightning puts in the place of ours, as it does for
        ``overfit_batches``.
        """
        if isinstance(entry, int):
            first = entry * self.batch_size
            entry = np.arange(first, min(first + self.batch_size, len(self.rows)))
        return Fetched(self.rows.batch(entry))

    def __getitems__(self, positions: Sequence[int | None]) -> Fetched[Batch]:
        """The batch of listed rows, for prediction, where Lightning keeps count of them itself."""
        known = [position for position in positions if position is not None]
        return Fetched(self.rows.batch(np.array(known, dtype=np.int64)))


def as_fetched(batch: Fetched[Batch]) -> Fetched[Batch]:
    """The batch as it is: rows need no collation."""
    return batch
