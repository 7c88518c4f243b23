"""Training rows in chunks of tasks, each laid out so that its trees grow fast."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_tabular.boosting.growing import Chunk
from mtl_tabular.boosting.grown import Ints
from mtl_tabular.boosting.histograms import BinnedRows
from mtl_tabular.boosting.matrix import taken
from mtl_tabular.boosting.sorted_columns import SortedColumns

CHUNK_ROWS = 1 << 14
"""Rows of a chunk of several tasks: working memory stays small, whatever the table."""


class TaskChunk(Protocol):
    """Some tasks' rows."""

    @property
    def tasks(self) -> Ints:
        """(T,) of this chunk."""

    @property
    def rows(self) -> Ints:
        """(m,) of the table, a task's rows together."""

    @property
    def layout(self) -> Chunk[Any]:
        """Of these rows."""


@dataclass(frozen=True)
class HeldChunk:
    """Some tasks' rows in memory.

    Args:
        tasks: (T,) of this chunk.
        rows: (m,) of the table, a task's rows together.
        layout: of these rows.
    """

    tasks: Ints
    rows: Ints
    layout: Chunk[Any]


@dataclass(frozen=True)
class StoredChunk:
    """Some tasks' rows on the disk, read anew whenever their trees grow.

    Args:
        tasks: (T,) of this chunk.
        rows: (m,) of the table, a task's rows together.
        path: of a file that this process has written.
    """

    tasks: Ints
    rows: Ints
    path: Path

    @property
    def layout(self) -> Chunk[Any]:
        """Of these rows."""
        with self.path.open("rb") as file:
            found: Chunk[Any] = pickle.load(file)
        return found


def task_chunks(
    values: NDArray[np.float32],
    tasks: NDArray[np.int64],
    count: int,
    *,
    max_bin: int,
    depth: int,
    least: int = 1,
) -> list[TaskChunk]:
    """Chunks of all tasks that have enough rows, tasks of like size together.

    Args:
        values: (n, F) features, NaN where missing. Of those mapped from a file chunks are stored
            beside it.
        tasks: (n,) ascending in 0..T-1.
        count: T.
        max_bin: bins of a feature of a task at most.
        depth: of the trees to grow.
        least: rows that a task needs.
    """
    sizes = np.bincount(tasks, minlength=count)
    starts = np.cumsum(sizes) - sizes
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= max(least, 1)]
    chunks: list[TaskChunk] = []
    while len(order):
        fitting = int(np.searchsorted(np.cumsum(sizes[order]), CHUNK_ROWS, side="right"))
        chosen, order = np.split(order, [max(fitting, 1)])
        chosen = np.sort(chosen)
        own = sizes[chosen]
        first = np.repeat(starts[chosen] - (np.cumsum(own) - own), own)
        rows = first + np.arange(len(first))
        layout = _laid_out(SortedColumns.of(taken(values, rows), own, max_bin), depth)
        if isinstance(values, np.memmap):
            path = Path(f"{values.filename}.chunk{len(chunks)}")
            with path.open("wb") as file:
                pickle.dump(layout, file, protocol=pickle.HIGHEST_PROTOCOL)
            chunks.append(StoredChunk(chosen, rows, path))
        else:
            chunks.append(HeldChunk(chosen, rows, layout))
    return chunks


def _laid_out(columns: SortedColumns, depth: int) -> Chunk[Any]:
    """The cheaper layout; both grow the same trees. Nanoseconds were measured."""
    slots, rows = columns.order.shape
    entries = slots * rows
    cells = len(np.unique(columns.features)) + int(
        sum(len(np.unique(bins)) for bins in columns.bins)
    )
    sorting = entries * (17 * depth + 15 * (depth - 1))
    counting = entries * 5.5 * (depth + 1) + cells * (2**depth - 1) * 100
    return BinnedRows.of(columns) if counting < sorting else columns
