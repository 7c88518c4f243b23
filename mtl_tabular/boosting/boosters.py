"""The task blocks of R-MTGB as one booster of XGBoost a task, for trees that a forest has not."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_tabular.boosting.blocks import Rows, RowSet, TreeBlock
from mtl_tabular.boosting.objectives import Floats


class TaskBoosters:
    """One `TreeBlock` a task, with the methods of `TaskForest`.

    Args:
        parameters: of XGBoost's trees, one record a task.
        outputs: K.
    """

    def __init__(self, parameters: list[dict[str, Any]], *, outputs: int = 1) -> None:
        self.blocks = [TreeBlock(p, outputs=outputs) for p in parameters]
        self.outputs = outputs

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.blocks)

    def __getitem__(self, task: int) -> TreeBlock:
        """Block of a task."""
        return self.blocks[task]

    def __iter__(self) -> Iterator[TreeBlock]:
        """All blocks."""
        return iter(self.blocks)

    @property
    def rounds(self) -> int:
        """Rounds of the longest block."""
        return max((block.rounds for block in self.blocks), default=0)

    def grow(
        self, train: RowSet, gradient: Floats, hessian: Floats, *, least: int, scores: Floats
    ) -> None:
        """Add one round; arguments as in `TaskForest.grow`."""
        for r, matrix in train.task_matrices.items():
            rows, block = train.slices[r], self.blocks[r]
            if rows.stop - rows.start >= least:
                block.grow(matrix, gradient[rows], hessian[rows])
                scores[rows] = block.scores(matrix)

    def training_scores(self, train: RowSet) -> Floats:
        """Scores (n, K) of all rounds by the boosters' own caches."""
        scores = np.zeros((len(train), self.outputs), np.float32)
        if self.rounds:
            for r, matrix in train.task_matrices.items():
                scores[train.slices[r]] = self.blocks[r].scores(matrix)
        return scores

    def part(self, rows: Rows, tasks: NDArray[np.int64], start: int, stop: int) -> Floats:
        """Scores (n, K) of some rounds; arguments as in `TaskForest.part`."""
        scores = np.zeros((len(tasks), self.outputs), np.float32)
        if start >= min(stop, self.rounds):
            return scores
        if isinstance(rows, RowSet):
            for r, matrix in rows.task_matrices.items():
                scores[rows.slices[r]] = self.blocks[r].part(matrix, start, stop)
            return scores
        for r in np.unique(tasks[tasks >= 0]):
            if self.blocks[r].rounds > start:
                own = np.flatnonzero(tasks == r)
                matrix = rows.matrix.slice(own) if len(own) < len(tasks) else rows.matrix
                scores[own] = self.blocks[r].part(matrix, start, stop)
        return scores

    def keep(self, rounds: int) -> None:
        """Forget all but the first rounds."""
        for block in self.blocks:
            block.keep(rounds)

    def gains(self, features: int) -> NDArray[np.float64]:
        """Sum of the gains of all splits by feature and task, (features, T)."""
        return np.stack([block.gains(features) for block in self.blocks], 1)

    def state(self) -> dict[str, Any]:
        """Rounds and trees as plain data."""
        return {"kind": "boosters", "blocks": [block.state() for block in self.blocks]}

    def restore(self, state: dict[str, Any]) -> Self:
        """Take rounds and trees from plain data.

        Args:
            state: of `state`.
        """
        for block, saved in zip(self.blocks, state["blocks"], strict=True):
            block.restore(saved)
        return self
