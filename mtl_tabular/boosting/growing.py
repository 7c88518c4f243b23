"""Growing a tree of each of several tasks, level by level; how splits are found is left open."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mtl_tabular.boosting.grown import LEAST_GAIN, Grown, Ints, Nodes, Rounded, TreeRules
from mtl_tabular.boosting.objectives import Floats

TIED = 1 - 1e-9
"""Gains this close to the best are as good; the first of them wins."""


@dataclass(frozen=True)
class Level:
    """Nodes of one depth that may split.

    Args:
        node: (N,) places in the table of nodes.
        task: (N,).
        size: (N,) rows.
        gradient: (N,) sums of first derivatives.
        hessian: (N,) sums of second derivatives.
    """

    node: Ints
    task: Ints
    size: Ints
    gradient: Ints
    hessian: Ints


@dataclass(frozen=True)
class Best:
    """The best split of every node of a level.

    Args:
        gain: (N,), at most 0 where there is none.
        slot: (N,).
        threshold: (N,).
        back: (N,) whether missing values go left.
        left: sums of first and second derivatives (N,) of the left children.
        row: (n,) rows of the level.
        node_of: (n,) of them, in 0..N-1.
        goes_left: (n,) of them.
    """

    gain: Floats
    slot: Ints
    threshold: NDArray[np.float32]
    back: NDArray[np.bool_]
    left: tuple[Ints, Ints]
    row: Ints
    node_of: Ints
    goes_left: NDArray[np.bool_]


@dataclass(frozen=True)
class Children:
    """Children of the nodes that were split; of pairs (2, P) the left ones are first.

    Args:
        parent: (P,) places in the level.
        node: (2, P) places in the table.
        task: (P,).
        size: (2, P).
        gradient: (2, P).
        hessian: (2, P).
        live: (2, P) whether they may split again.
        row: (n,) rows of all of them.
        of_row: (n,) in 0..P-1.
        left: (n,) which of the two.
    """

    parent: Ints
    node: Ints
    task: Ints
    size: Ints
    gradient: Ints
    hessian: Ints
    live: NDArray[np.bool_]
    row: Ints
    of_row: Ints
    left: NDArray[np.bool_]

    def level(self, chosen: NDArray[np.bool_]) -> Level:
        """Some children (2, P), left ones first."""
        return Level(
            self.node[chosen], np.stack([self.task] * 2)[chosen], self.size[chosen],
            self.gradient[chosen], self.hessian[chosen],
        )  # fmt: skip


L = TypeVar("L", bound=Level)


class Chunk(ABC, Generic[L]):
    """Rows of some tasks, a task's rows together.

    A task's features that have one value only are left out: slot s of task t is feature
    ``features[s, t]``.
    """

    sizes: Ints
    features: Ints

    @abstractmethod
    def _root(self, derivatives: Rounded, level: Level) -> L:
        """The first level."""

    @abstractmethod
    def _best(
        self,
        level: L,
        derivatives: Rounded,
        rules: TreeRules,
        closed: NDArray[np.bool_] | None,
    ) -> Best:
        """The best split of every node; ``closed`` (S, T) slots are not split."""

    @abstractmethod
    def _divide(self, level: L, derivatives: Rounded, best: Best, kids: Children) -> L:
        """The next level, of which some child is live."""

    def grow(
        self,
        derivatives: Rounded,
        rules: TreeRules,
        learning_rate: NDArray[np.float64],
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[Grown, Ints]:
        """A tree of every task.

        Args:
            derivatives: of the rows.
            rules: of growth.
            learning_rate: (T,).
            allowed: (F, T) features that a task's tree may split; None means all.

        Returns:
            The trees, and the leaf (m,) of every row.
        """
        T = len(self.sizes)
        closed = None
        if allowed is not None:
            closed = ~np.take_along_axis(allowed, self.features, 0)
        starts = np.cumsum(self.sizes) - self.sizes
        G = np.add.reduceat(derivatives.gradient, starts)
        H = self.sizes
        if derivatives.hessian is not None:
            H = np.add.reduceat(derivatives.hessian, starts)
        nodes = Nodes(rules, derivatives, T)
        nodes.add(np.arange(T), G, H)
        leaf = np.repeat(np.arange(T), self.sizes)
        level = self._root(derivatives, Level(np.arange(T), np.arange(T), self.sizes, G, H))
        for depth in range(rules.max_depth):
            best = self._best(level, derivatives, rules, closed)
            won = np.flatnonzero((best.gain > LEAST_GAIN) & (best.gain >= rules.gamma))
            if not len(won):
                break
            task = level.task[won]
            left_sums = best.left[0][won], best.left[1][won]
            first = nodes.split(
                level.node[won], self.features[best.slot[won], task], best.threshold[won],
                best.back[won], best.gain[won], left_sums,
                (level.gradient[won], level.hessian[won]), task,
            )  # fmt: skip
            of_node = np.full(len(level.node), -1)
            of_node[won] = np.arange(len(won))
            of_row, row, left = of_node[best.node_of], best.row, best.goes_left
            if len(won) < len(of_node):
                kept = np.flatnonzero(of_row >= 0)
                of_row, row, left = of_row[kept], row[kept], left[kept]
            leaf[row] = first[of_row] + ~left
            if depth + 1 == rules.max_depth:
                break
            sizes = np.bincount(of_row, left, len(won)).astype(np.int64)
            size = np.stack([sizes, level.size[won] - sizes])
            G = np.stack([left_sums[0], level.gradient[won] - left_sums[0]])
            H = np.stack([left_sums[1], level.hessian[won] - left_sums[1]])
            heavy = H * derivatives.hessian_unit[task] >= 2 * rules.min_child_weight
            live = heavy & (size >= 2)
            if not live.any():
                break
            kids = Children(
                won, np.stack([first, first + 1]), task, size, G, H, live, row, of_row, left
            )
            level = self._divide(level, derivatives, best, kids)
        return nodes.finish(learning_rate), leaf
