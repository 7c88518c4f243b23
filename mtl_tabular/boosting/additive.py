"""The trained sum of R-MTGB: F = intercept + a(x) + Σ_g π_rg f_g(x) + d_r(x)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_tabular.boosting.blocks import Rows, TreeBlock
from mtl_tabular.boosting.boosters import TaskBoosters
from mtl_tabular.boosting.forest import TaskForest
from mtl_tabular.boosting.objectives import Floats, group_shares


@dataclass(frozen=True)
class Margins:
    """Scores of every block on n rows.

    Args:
        shared: a (n, K).
        groups: f (G, n, K).
        own: d (n, K).
    """

    shared: Floats
    groups: Floats
    own: Floats

    @classmethod
    def zeros(cls, rows: int, groups: int, outputs: int) -> Self:
        """Scores before the first round."""
        return cls(
            np.zeros((rows, outputs), np.float32),
            np.zeros((groups, rows, outputs), np.float32),
            np.zeros((rows, outputs), np.float32),
        )

    def total(self, intercept: Floats, share: Floats) -> Floats:
        """F (n, K).

        Args:
            intercept: (K,).
            share: π (n, G) of each row's task.
        """
        total = intercept.astype(np.float32) + self.shared + self.own
        for g, scores in enumerate(self.groups):
            total = total + share[:, g, None].astype(np.float32) * scores
        return total


class AdditiveModel:
    """Blocks of trees, group logits of the tasks and an intercept.

    A row of a task that training did not have gets the mean shares of the training rows and no
    task block.

    Args:
        count: T, tasks.
        groups: G, at least 2.
        intercept: (K,).
        theta: (T, G-1) before the first round.
        rows: (T,) training rows of every task.
        shared: parameters of XGBoost's trees for the shared block.
        grouped: likewise for the group blocks.
        own: likewise for the task blocks, one record a task.
        together: whether the task blocks are a `TaskForest` where it has such trees, instead of a
            booster of XGBoost each. Not for categorical features.
    """

    def __init__(
        self,
        *,
        count: int,
        groups: int,
        intercept: Floats,
        theta: Floats,
        rows: NDArray[Any],
        shared: dict[str, Any],
        grouped: list[dict[str, Any]],
        own: list[dict[str, Any]],
        together: bool = True,
    ) -> None:
        self.count, self.group_count = count, groups
        self.intercept = np.asarray(intercept, dtype=np.float64)
        self.outputs = len(self.intercept)
        self.thetas: list[Floats] = [np.asarray(theta, dtype=np.float64)]
        """θ before training and after every round of the group block."""
        self.rows = np.asarray(rows)
        self.shared = TreeBlock(shared, outputs=self.outputs)
        self.groups = [TreeBlock(p, outputs=self.outputs, origin=g) for g, p in enumerate(grouped)]
        self.own: TaskForest | TaskBoosters
        if together and all(TaskForest.supports(p) for p in own):
            self.own = TaskForest(own, outputs=self.outputs)
        else:
            self.own = TaskBoosters(own, outputs=self.outputs)

    @property
    def theta(self) -> Floats:
        """(T, G-1), now."""
        return self.thetas[-1]

    @property
    def shares(self) -> Floats:
        """π (T, G), now."""
        return group_shares(self.theta)

    @property
    def rounds(self) -> tuple[int, int, int]:
        """Rounds of the shared block, of the groups, and of the task blocks (the longest)."""
        return self.shared.rounds, len(self.thetas) - 1, self.own.rounds

    def row_shares(self, tasks: NDArray[np.int64], theta: Floats | None = None) -> Floats:
        """π (n, G) of rows; unknown tasks (-1) get the mean over the training rows."""
        shares = group_shares(self.theta if theta is None else theta)
        mean = np.average(shares, axis=0, weights=self.rows)
        return np.concatenate([shares, mean[None]])[np.where(tasks < 0, self.count, tasks)]

    def keep(self, shared: int, groups: int, own: int) -> None:
        """Forget all but the first rounds of every block."""
        self.shared.keep(shared)
        for block in self.groups:
            block.keep(groups)
        del self.thetas[groups + 1 :]
        self.own.keep(own)

    def canonicalise(self) -> NDArray[np.int64]:
        """Order the groups by how many tasks lean to them most, ties by rows: an equal model.

        With two groups at most half of the tasks then have a share above ½ in the second, which so
        becomes the outlier group.

        Returns:
            The former places (G,) of the groups in their new order.
        """
        leaning = self.shares.argmax(1)
        tasks = np.bincount(leaning, minlength=self.group_count)
        rows = np.bincount(leaning, self.rows, self.group_count)
        order = np.lexsort((np.arange(self.group_count), -rows, -tasks))
        self.groups = [self.groups[g] for g in order]
        for i, theta in enumerate(self.thetas):
            logits = np.concatenate([np.zeros_like(theta[:, :1]), theta], 1)[:, order]
            self.thetas[i] = logits[:, 1:] - logits[:, :1]
        return order

    def margins(
        self,
        rows: Rows,
        tasks: NDArray[np.int64],
        start: tuple[int, int, int] = (0, 0, 0),
        stop: tuple[int, int, int] | None = None,
    ) -> Margins:
        """Scores of every block over a range of rounds (shared, groups, own).

        Args:
            rows: n rows that no block grows on.
            tasks: (n,) in 0..T-1, -1 where unknown.
            start: first rounds.
            stop: rounds before which to stop; None means all.
        """
        stop = self.rounds if stop is None else stop
        groups = [block.part(rows.matrix, start[1], stop[1]) for block in self.groups]
        own = self.own.part(rows, tasks, start[2], stop[2])
        return Margins(self.shared.part(rows.matrix, start[0], stop[0]), np.stack(groups), own)

    def scores(self, rows: Rows, tasks: NDArray[np.int64]) -> Floats:
        """F (n, K) of all rounds."""
        return self.margins(rows, tasks).total(self.intercept, self.row_shares(tasks))

    def staged(self, rows: Rows, tasks: NDArray[np.int64], *, together: bool) -> Iterator[Floats]:
        """F (n, K) after every round, with the shares that the round had.

        Args:
            rows: n rows.
            tasks: (n,).
            together: whether the blocks grew in turns (interleaved) or one after the other.
        """
        n1, n2, n3 = self.rounds
        if together:
            steps = [(min(k, n1), min(k, n2), min(k, n3)) for k in range(max(n1, n2, n3) + 1)]
        else:
            steps = [(k, 0, 0) for k in range(n1 + 1)]
            steps += [(n1, k, 0) for k in range(1, n2 + 1)]
            steps += [(n1, n2, k) for k in range(1, n3 + 1)]
        sum_ = Margins.zeros(len(tasks), self.group_count, self.outputs)
        for before, after in pairwise(steps):
            new = self.margins(rows, tasks, before, after)
            sum_ = Margins(sum_.shared + new.shared, sum_.groups + new.groups, sum_.own + new.own)
            share = self.row_shares(tasks, self.thetas[after[1]])
            yield sum_.total(self.intercept, share)

    def state(self) -> dict[str, Any]:
        """Everything learned, as plain data."""
        return {
            "intercept": self.intercept.tolist(),
            "thetas": [theta.tolist() for theta in self.thetas],
            "rows": self.rows.tolist(),
            "shared": self.shared.state(),
            "groups": [block.state() for block in self.groups],
            "own": self.own.state(),
        }

    def restore(self, state: dict[str, Any]) -> Self:
        """Take what was learned from plain data.

        Args:
            state: of `state`.
        """
        self.intercept = np.array(state["intercept"], dtype=np.float64)
        self.thetas = [
            np.array(theta, dtype=np.float64).reshape(self.count, self.group_count - 1)
            for theta in state["thetas"]
        ]
        self.rows = np.array(state["rows"])
        self.shared.restore(state["shared"])
        for block, saved in zip(self.groups, state["groups"], strict=True):
            block.restore(saved)
        self.own.restore(state["own"])
        return self
