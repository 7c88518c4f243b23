"""Growing the trees of many small tasks together on columns that stay sorted within nodes.

Every feature's rows are sorted by task and value once. A level of all trees is then one pass: sums
up to every row are a running sum along the sorted column, a split divides the column stably, and a
child's rows are sorted as its parent's were. The cost of a level is the number of live rows times
the number of features, however many tasks, nodes and distinct values there are.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mtl_tabular.boosting.growing import TIED, Best, Children, Chunk, Level
from mtl_tabular.boosting.grown import TOP, Ints, Rounded, TreeRules
from mtl_tabular.boosting.objectives import Floats

MISSING = np.iinfo(np.int32).max
"""Bin of missing values."""
TILE = 1 << 15
"""Entries of sorted columns that are looked at together, so that they stay in the cache."""


@dataclass(frozen=True)
class SortedColumns(Chunk["SortedLevel"]):
    """Rows of some tasks, and their columns sorted within tasks.

    A task's features that have one value only are left out: slot s of task t is feature
    ``features[s, t]``.

    Args:
        sizes: (T,) rows of every task.
        features: (S, T).
        order: (S, m) rows by task and value, missing values last in their task.
        bins: (S, m) of every row (not sorted): place in `order` where its bin begins, `MISSING` of
            missing values.
        lower: (S, m) by place, least value of the bin; (S, 0) where no value is missing.
        upper: (S, m) by place, least value of the next bin of the task, `TOP` after its last one.
        tied: (S,) slots where several rows of a task have one bin.
        missing: (S,) slots with missing values.
    """

    sizes: Ints
    features: Ints
    order: Ints
    bins: NDArray[np.int32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    tied: NDArray[np.bool_]
    missing: NDArray[np.bool_]

    @classmethod
    def of(cls, values: NDArray[np.float32], sizes: Ints, max_bin: int) -> Self:
        """Sort.

        Args:
            values: (m, F), rows of a task together; NaN where missing.
            sizes: (T,) rows of every task, at least 1.
            max_bin: bins of a column of a task at most; fewer distinct values have one each.
        """
        m, F = values.shape
        task = np.repeat(np.arange(len(sizes)), sizes)
        order = np.empty((F, m), np.int64)
        bins = np.empty((F, m), np.int32)
        lower, upper = np.empty((F, m), np.float32), np.empty((F, m), np.float32)
        varied = np.empty((F, len(sizes)), bool)
        for f in range(F):
            order[f] = np.lexsort((values[:, f], task))
            found = bin_sorted(values[order[f], f], task, sizes, max_bin)
            bins[f], lower[f], upper[f], varied[f] = found
        slots = max(1, int(varied.sum(0).max(initial=1)))
        features = np.argsort(~varied, axis=0, kind="stable")[:slots]
        chosen = np.repeat(features, sizes, axis=1)
        order = np.take_along_axis(order, chosen, 0)
        bins = np.take_along_axis(bins, chosen, 0)
        upper = np.take_along_axis(upper, chosen, 0)
        missing = (bins == MISSING).any(1)
        lower = np.take_along_axis(lower, chosen, 0) if missing.any() else upper[:, :0].copy()
        by_row = np.empty_like(bins)
        np.put_along_axis(by_row, order, bins, 1)
        tied = (bins != np.arange(m)).any(1)
        return cls(sizes, features, order, by_row, lower, upper, tied, missing)

    def _root(self, derivatives: Rounded, level: Level) -> "SortedLevel":
        return SortedLevel(**vars(level), order=self.order)

    def _best(
        self,
        level: "SortedLevel",
        derivatives: Rounded,
        rules: TreeRules,
        closed: NDArray[np.bool_] | None,
    ) -> Best:
        return Scan(self, level, derivatives, rules).best(closed)

    def _divide(
        self, level: "SortedLevel", derivatives: Rounded, best: Best, kids: Children
    ) -> "SortedLevel":
        side = np.zeros(self.order.shape[1], np.int8)
        side[kids.row] = np.where(kids.left, kids.live[0][kids.of_row],
                                  2 * kids.live[1][kids.of_row])  # fmt: skip
        whole = vars(kids.level(kids.live))
        return SortedLevel(**whole, order=_divided(level.order, side))


def _divided(order: Ints, side: NDArray[np.int8]) -> Ints:
    """Columns with the rows of side 1 first, then those of side 2, each in their former order."""
    counts = [int(np.count_nonzero(side == kind)) for kind in (1, 2)]
    divided = np.empty((len(order), sum(counts)), np.int64)
    step = max(1, TILE // order.shape[1])
    for s in range(0, len(order), step):
        part = order[s : s + step]
        flags, flat = side.take(part, mode="clip").ravel(), part.ravel()
        a = 0
        for kind, count in zip((1, 2), counts, strict=True):
            taken = flat.take(np.flatnonzero(flags == kind), mode="clip")
            divided[s : s + step, a : a + count] = taken.reshape(len(part), count)
            a += count
    return divided


@dataclass(frozen=True)
class SortedLevel(Level):
    """Nodes of one depth that may split, and their rows in sorted columns.

    Args:
        order: (S, rows of all these nodes), node after node.
    """

    order: Ints


@dataclass(frozen=True)
class Column:
    """Sums and gains along sorted columns (s, n), s = 1 for what all columns share.

    Args:
        G: first derivatives up to every row of a node.
        H: likewise second ones.
        forward: gain of a split after the row, missing values on the right.
        backward: likewise with missing values on the left; None without missing values.
        gone: which values are missing.
        lost: sums (s, N) of the derivatives of missing values.
    """

    G: Floats
    H: Floats
    forward: Floats
    backward: Floats | None = None
    gone: NDArray[np.bool_] | None = None
    lost: tuple[Floats, Floats] | None = None


class Scan:
    """A look at all splits of a level.

    Args:
        columns: of the chunk.
        level: to split.
        derivatives: of the chunk's rows.
        rules: of growth.
    """

    def __init__(
        self, columns: SortedColumns, level: SortedLevel, derivatives: Rounded, rules: TreeRules
    ) -> None:
        self.columns, self.level, self.rules = columns, level, rules
        self.derivatives = derivatives
        task, size = level.task, level.size
        self.gradient_unit = derivatives.gradient_unit[task]
        self.hessian_unit = derivatives.hessian_unit[task]
        self.alpha = rules.reg_alpha / self.gradient_unit
        self.penalty = rules.reg_lambda / self.hessian_unit
        self.ends = np.cumsum(size)
        self.starts = self.ends - size
        self.node_of = node_of = np.repeat(np.arange(len(size)), size)
        self.base = np.repeat(np.cumsum(level.gradient) - level.gradient, size)
        self.total = level.gradient.astype(np.float64)[node_of]
        self.weight = level.hessian.astype(np.float64)[node_of]
        self.penalty_of = self.penalty[node_of]
        self.least_of = (rules.min_child_weight / self.hessian_unit)[node_of]
        self.counts = (np.arange(1, len(node_of) + 1) - self.starts[node_of]).astype(np.float64)
        self.hessian_base = self.base
        if derivatives.hessian is not None:
            self.hessian_base = np.repeat(np.cumsum(level.hessian) - level.hessian, size)
        self.counted = self._inverses(self.counts) if derivatives.hessian is None else None
        self.curve: tuple[Floats, Floats, Floats] | None = None
        if self.counted is not None and not rules.reg_alpha:
            left, right = self.counted
            self.curve = left + right, 2 * self.total * right, self.total**2 * right

    def best(self, closed: NDArray[np.bool_] | None) -> Best:
        """The best split of every node; the first of several.

        Args:
            closed: (S, T) slots that a task must not split.
        """
        level, columns = self.level, self.columns
        slots, n = level.order.shape
        top = np.empty((2, slots, len(level.node)))
        step = max(1, TILE // n)
        for s in range(0, slots, step):
            tile = slice(s, s + step)
            found = self._column(
                level.order[tile], np.arange(slots)[tile],
                missing=bool(columns.missing[tile].any()), tied=bool(columns.tied[tile].any()),
            )  # fmt: skip
            top[0, tile] = np.maximum.reduceat(found.forward, self.starts, axis=1)
            top[1, tile] = 0.0
            if found.backward is not None:
                top[1, tile] = np.maximum.reduceat(found.backward, self.starts, axis=1)
        backward = top[1] * TIED > top[0]
        top = top.max(0)
        if closed is not None:
            top[closed[:, level.task]] = 0
        every = np.arange(len(level.node))
        slot = (top >= TIED * top.max(0)).argmax(0)
        back, gain = backward[slot, every], top[slot, every]
        # Once more along the chosen columns.
        slot_of = slot[self.node_of]
        row = level.order[slot_of, np.arange(n)]
        found = self._column(
            row[None], slot_of, missing=bool(columns.missing[slot].any()), tied=True
        )
        values = found.forward[0]
        if found.backward is not None:
            values = np.where(back[self.node_of], found.backward[0], values)
        hits = np.flatnonzero(values >= TIED * gain[self.node_of])
        place = np.zeros(len(every), np.int64)
        place[self.node_of[hits[::-1]]] = hits[::-1]
        if back.any():  # the last of several, as XGBoost's search from above finds it
            last = np.zeros(len(every), np.int64)
            last[self.node_of[hits]] = hits
            place = np.where(back, last, place)
        G, H = found.G[0, place], found.H[0, place]
        goes_left = np.arange(n) <= place[self.node_of]
        threshold = columns.upper[slot, columns.bins[slot, row[place]] % MISSING]
        if back.any():
            assert found.gone is not None
            assert found.lost is not None
            G = G + np.where(back, found.lost[0][0], 0)
            H = H + np.where(back, found.lost[1][0], 0)
            goes_left |= back[self.node_of] & found.gone[0]
            after = columns.bins[slot[back], row[place[back] + 1]]
            threshold[back] = columns.lower[slot[back], after]
        scale = self.gradient_unit**2 / self.hessian_unit
        side = self.rules.clipped(level.gradient.astype(np.float64), self.alpha)
        gain = (gain - side**2 / np.maximum(level.hessian + self.penalty, 1e-300)) * scale
        sums = G.astype(np.int64), H.astype(np.int64)
        return Best(gain, slot, threshold, back, sums, row, self.node_of, goes_left)

    def _column(self, order: Ints, slots: Ints, *, missing: bool, tied: bool) -> Column:
        """Sums and gains along sorted columns.

        Args:
            order: (s, n) rows.
            slots: (s,), or (n,) where one column is made of several slots.
            missing: whether a value is missing.
            tied: whether rows share bins.
        """
        g, h = self.derivatives.gradient, self.derivatives.hessian
        G = self._running(g, order, self.base)
        H: Floats = self.counts[None]
        if h is not None:
            H = self._running(h, order, self.hessian_base)
        if not missing and not tied:
            return Column(G, H, self._gains(G, H))
        bins = np.empty(order.shape, np.int32)
        if len(slots) == len(order):
            for line, s, rows in zip(bins, slots, order, strict=True):
                self.columns.bins[s].take(rows, out=line, mode="clip")
        else:
            bins[0] = self.columns.bins[slots, order[0]]
        border = np.zeros(bins.shape, bool)
        np.not_equal(bins[:, 1:], bins[:, :-1], out=border[:, :-1])
        border[:, self.ends - 1] = False
        forward = self._gains(G, H)
        forward *= border
        if not missing:
            return Column(G, H, forward)
        gone = bins == MISSING
        lost_G = np.add.reduceat(np.where(gone, g[order], 0), self.starts, axis=1)
        each = 1 if h is None else h[order]
        lost_H = np.add.reduceat(np.where(gone, each, 0), self.starts, axis=1)
        border[:, :-1] &= ~gone[:, 1:]  # all but the missing ones on one side: seen already
        backward = self._gains(
            G + lost_G[:, self.node_of], H + lost_H[:, self.node_of], several=True
        )
        backward *= border
        return Column(G, H, forward, backward, gone, (lost_G, lost_H))

    def _running(self, values: Ints, order: Ints, base: Ints) -> Floats:
        """Sums (s, n) within nodes up to every row: exact, so all columns have the same totals."""
        sums = np.empty(order.shape, np.int64)
        values.take(order, out=sums, mode="clip")  # the fast mode
        np.cumsum(sums, axis=1, out=sums)
        found = np.empty(sums.shape)
        np.subtract(sums, base, out=found, casting="unsafe")
        return found

    def _inverses(self, H: Floats) -> tuple[Floats, Floats]:
        """1 / (H + λ) of both sides, 0 where a side has too little weight."""
        rest = self.weight - H
        allowed = (self.least_of <= H) & (self.least_of <= rest) & (H > 0) & (rest > 0)
        left, right = np.zeros_like(H), np.zeros_like(H)
        np.divide(1.0, H + self.penalty_of, out=left, where=allowed)
        np.divide(1.0, rest + self.penalty_of, out=right, where=allowed)
        return left, right

    def _gains(self, G: Floats, H: Floats, *, several: bool = False) -> Floats:
        """G_L² / (H_L + λ) + G_R² / (H_R + λ), 0 where a side has too little weight.

        Args:
            G: (s, n) of the left side.
            H: (s, n) or (1, n).
            several: whether H differs between columns though rows weigh the same.
        """
        found: Floats = np.empty(G.shape)
        if self.curve is not None and not several:  # the same as a polynomial of G_L
            np.multiply(G, self.curve[0], out=found)
            found -= self.curve[1]
            found *= G
            found += self.curve[2]
            return found
        left, right = self._inverses(H) if several or self.counted is None else self.counted
        alpha = self.alpha[self.node_of]
        np.square(self.rules.clipped(G, alpha), out=found)
        found *= left
        rest = np.square(self.rules.clipped(self.total - G, alpha))
        rest *= right
        found += rest
        return found


def bin_sorted(
    values: NDArray[np.float32], task: Ints, sizes: Ints, max_bin: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Bins of a column that is sorted by task and value.

    Args:
        values: (m,), missing ones last in their task.
        task: (m,) ascending in 0..T-1.
        sizes: (T,) rows of every task.
        max_bin: bins of a task at most.

    Returns:
        Place of the first row of the bin, or `MISSING`; least value of the bin; least value of the
        next one, `TOP` after the last; all (m,); and (T,) whether the task has two bins or more.
    """
    m = len(values)
    there = ~np.isnan(values)
    first = np.ones(m, bool)
    first[1:] = (values[1:] != values[:-1]) | (task[1:] != task[:-1])
    first &= there
    starts = np.cumsum(sizes) - sizes
    distinct = np.add.reduceat(first.astype(np.int64), starts)
    if (distinct > max_bin).any():
        # Quantiles of the rows; a value belongs to the bin of its first row.
        rank = np.arange(m) - starts[task]
        present = np.add.reduceat(there.astype(np.int64), starts)
        quantile = rank * max_bin // np.maximum(present, 1)[task]
        quantile = quantile[np.maximum.accumulate(np.where(first, np.arange(m), 0))]
        opens = np.ones(m, bool)
        opens[1:] = (quantile[1:] != quantile[:-1]) | (task[1:] != task[:-1])
        first &= opens | (distinct <= max_bin)[task]
    bins = np.maximum.accumulate(np.where(first, np.arange(m), 0))
    places = np.flatnonzero(first)
    following = np.full(m, np.float32(TOP))
    same = task[places[1:]] == task[places[:-1]]
    following[places[:-1][same]] = values[places[1:][same]]
    lower, upper = values[bins], following[bins]
    kinds = np.add.reduceat(first.astype(np.int64), starts)
    holes = np.add.reduceat((~there).astype(np.int64), starts)
    varied = (kinds > 1) | ((kinds == 1) & (holes > 0))
    return np.where(there, bins, MISSING).astype(np.int32), lower, upper, varied
