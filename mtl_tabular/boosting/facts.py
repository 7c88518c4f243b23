"""What a training has to know of all rows before the first round, gathered piece by piece."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import EmptySplitError
from mtl_tabular.boosting.objectives import Floats
from mtl_tabular.boosting.pieces import Piece


@dataclass(frozen=True)
class Facts:
    """What there is to know of some rows before training.

    Args:
        tasks: names.
        rows: of every task.
        classes: all there are; none of numbers.
        moments: sum of weights, weighted mean and weighted sum of squares about it, of numbers.
        width: F.
    """

    tasks: NDArray[Any]
    rows: NDArray[np.int64]
    classes: NDArray[Any]
    moments: tuple[float, float, float]
    width: int

    @classmethod
    def of(cls, piece: Piece, *, numeric: bool, weighted: bool = True) -> "Facts":
        """Of a piece's rows, without those of weight 0 where weights count."""
        piece = piece.counted() if weighted else piece
        codes, tasks = pd.factorize(piece.tasks)
        rows = np.bincount(codes, minlength=len(tasks))
        width = piece.values.shape[1]
        if not numeric:
            classes = np.asarray(pd.unique(pd.Series(piece.targets)))
            return cls(tasks, rows, classes, (0.0, 0.0, 0.0), width)
        mass = float(piece.weights.sum())
        targets = piece.targets.astype(np.float64)
        mean = float(targets @ piece.weights) / mass if mass else 0.0
        moments = mass, mean, float(((targets - mean) ** 2) @ piece.weights)
        return cls(tasks, rows, targets[:0], moments, width)

    @classmethod
    def join(cls, parts: list["Facts"]) -> "Facts":
        """Of all rows."""
        filled = [part for part in parts if len(part.tasks)] or parts[:1]
        if not filled:
            raise EmptySplitError("train", "a table without partitions")
        names = np.concatenate([part.tasks for part in filled])
        codes, tasks = pd.factorize(names)
        counts = np.bincount(codes, np.concatenate([part.rows for part in filled]), len(tasks))
        classes = pd.unique(pd.Series(np.concatenate([part.classes for part in filled])))
        mass, mean, squares = np.array([part.moments for part in filled]).T
        total = mass.sum()
        middle = mass @ mean / total if total else 0.0
        spread = squares.sum() + mass @ (mean - middle) ** 2
        moments = float(total), float(middle), float(spread)
        return cls(
            np.asarray(tasks), counts.astype(np.int64), np.asarray(classes), moments,
            filled[0].width,
        )  # fmt: skip

    def answers(self, *, numeric: bool) -> tuple[NDArray[Any], Floats]:
        """A few targets and weights that teach an estimator what all rows would."""
        if not numeric:
            return self.classes, np.ones(len(self.classes))
        mass, mean, squares = self.moments
        apart = np.sqrt(squares / mass)
        return np.array([mean - apart, mean + apart]), np.ones(2)
