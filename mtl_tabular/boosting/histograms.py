"""Growing the trees of many tasks together on histograms, for columns of few values.

Every task has bins of its own. A node's histogram is a row of cells, slot after slot; nodes lie one
after the other, so that one count over all rows fills those of a level. Of two siblings only the
smaller is counted, the other is the difference.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mtl_tabular.boosting.growing import TIED, Best, Children, Chunk, Level
from mtl_tabular.boosting.grown import Ints, Rounded, TreeRules
from mtl_tabular.boosting.objectives import Floats
from mtl_tabular.boosting.sorted_columns import MISSING, SortedColumns

# Cells of up to so many rows times slots are kept in the order of the roots, at 12 bytes each.
KEPT = 1 << 22


@dataclass(frozen=True)
class BinnedLevel(Level):
    """Nodes of one depth and their histograms.

    Args:
        row: (n,) rows.
        node_of: (n,) of them, in 0..N-1.
        live: (N,) whether a node may split.
        first: sums of first derivatives by cell, nodes one after the other.
        second: likewise second ones.
    """

    row: Ints
    node_of: Ints
    live: NDArray[np.bool_]
    first: Ints
    second: Ints


@dataclass(frozen=True)
class BinnedRows(Chunk["BinnedLevel"]):
    """Rows of some tasks, and the cells that they belong to.

    Slots that a task does not need share one last cell.

    Args:
        sizes: (T,) rows of every task.
        features: (S, T).
        cells: (m, S) of every row, counted from its node's first.
        widths: (T,) cells of a node.
        slot: (W,) of every cell of one node a task, tasks one after the other.
        threshold: (W,) least value of the next bin.
        lost: (W,) cell of the missing values of the same slot, -1 where there are none.
        holes: whether a value is missing.
    """

    sizes: Ints
    features: Ints
    cells: NDArray[np.int32]
    widths: Ints
    slot: Ints
    threshold: NDArray[np.float32]
    lost: Ints
    holes: bool

    @classmethod
    def of(cls, columns: SortedColumns) -> Self:
        """Lay out the cells of rows whose columns are sorted."""
        sizes, (S, m), T = columns.sizes, columns.order.shape, len(columns.sizes)
        task = np.repeat(np.arange(T), sizes)
        starts = np.cumsum(sizes) - sizes
        bins = np.take_along_axis(columns.bins, columns.order, 1)
        opens = bins == np.arange(m)
        counts = np.add.reduceat(opens.astype(np.int64), starts, axis=1)
        gone = bins == MISSING
        missing: NDArray[np.bool_] = np.add.reduceat(gone.astype(np.int64), starts, axis=1) > 0
        used = (counts > 1) | ((counts == 1) & missing)
        lengths = np.where(used, counts + missing, 0)
        begins = np.cumsum(lengths, 0) - lengths
        widths = lengths.sum(0) + 1
        before = np.cumsum(widths) - widths
        code = np.cumsum(opens, axis=1) - 1 - (np.cumsum(counts, 1) - counts)[:, task]
        code = np.where(gone, counts[:, task], code)
        cell = np.where(used[:, task], begins[:, task] + code, (widths - 1)[task])
        cells = np.empty((m, S), np.int32)
        np.put_along_axis(cells.T, columns.order, cell.astype(np.int32), 1)
        total = int(widths.sum())
        slot, lost = np.full(total, S), np.full(total, -1)
        threshold = np.full(total, np.nan, np.float32)
        for s in range(S):
            at = np.flatnonzero(opens[s] & used[s, task])
            threshold[before[task[at]] + cell[s, at]] = columns.upper[s, at]
            own = np.repeat(before + begins[s], lengths[s])
            own += np.arange(len(own)) - np.repeat(np.cumsum(lengths[s]) - lengths[s], lengths[s])
            slot[own] = s
            holes = np.where(missing[s] & used[s], begins[s] + counts[s], -1)
            lost[own] = np.repeat(holes, lengths[s])
        return cls(
            sizes, columns.features, cells, widths, slot, threshold, lost, bool(missing.any())
        )

    def _root(self, derivatives: Rounded, level: Level) -> BinnedLevel:
        rows = np.arange(len(self.cells))
        node_of = np.repeat(np.arange(len(self.sizes)), self.sizes)
        member, hessian = self._roots(), derivatives.hessian
        return BinnedLevel(
            **vars(level), row=rows, node_of=node_of, live=np.ones(len(level.node), bool),
            first=_summed(member, derivatives.gradient),
            second=self._root_counts if hessian is None else _summed(member, hessian),
        )  # fmt: skip

    def _count(
        self, derivatives: Rounded, task: Ints, row: Ints, node_of: Ints
    ) -> tuple[Ints, Ints]:
        """Histograms of nodes: sums of derivatives by cell.

        Args:
            derivatives: of all rows.
            task: of the nodes.
            row: that count.
            node_of: their nodes.
        """
        member = self._member(task, row, node_of)
        hessian = derivatives.hessian
        weights = np.ones(len(row)) if hessian is None else hessian[row]
        return _summed(member, derivatives.gradient[row]), _summed(member, weights)

    def _member(self, task: Ints, row: Ints, node_of: Ints) -> sparse.csc_array:
        """Which cells (one a slot) each row lies in: its product with a column sums by cell."""
        ends = np.cumsum(self.widths[task])
        slots, total = self.cells.shape[1], int(ends[-1])
        kind = np.int32 if max(total, len(row) * slots) < 2**31 else np.int64
        base: NDArray[Any] = (ends - self.widths[task])[node_of].astype(kind)
        cells = self.cells if len(row) == len(self.cells) else self.cells[row]
        places: NDArray[Any] = np.add(cells, base[:, None]).ravel()
        starts: NDArray[Any] = np.arange(0, len(places) + 1, slots, dtype=kind)
        return sparse.csc_array((np.ones(len(places)), places, starts), shape=(total, len(row)))

    def _roots(self) -> sparse.csc_array:
        """That of all rows at the roots; the same for every tree, so small ones are kept."""
        return self._kept_roots if self.cells.size <= KEPT else self._made_roots()

    @cached_property
    def _kept_roots(self) -> sparse.csc_array:
        return self._made_roots()

    def _made_roots(self) -> sparse.csc_array:
        tasks = np.arange(len(self.sizes))
        return self._member(tasks, np.arange(len(self.cells)), np.repeat(tasks, self.sizes))

    @cached_property
    def _root_counts(self) -> Ints:
        """Rows by cell at the roots."""
        return _summed(self._roots(), np.ones(len(self.cells)))

    def _best(
        self,
        level: BinnedLevel,
        derivatives: Rounded,
        rules: TreeRules,
        closed: NDArray[np.bool_] | None,
    ) -> Best:
        task, N = level.task, len(level.node)
        gradient_unit = derivatives.gradient_unit[task]
        hessian_unit = derivatives.hessian_unit[task]
        alpha, penalty = rules.reg_alpha / gradient_unit, rules.reg_lambda / hessian_unit
        widths = self.widths[task]
        ends = np.cumsum(widths)
        starts = ends - widths
        node_of = np.repeat(np.arange(N), widths)
        cell = np.arange(len(node_of)) - starts[node_of]
        place = (np.cumsum(self.widths) - self.widths)[task][node_of] + cell
        slot = self.slot[place]
        slots = len(self.features)

        def left_of(cells: Ints, totals: Ints) -> Floats:
            before = slots * (np.cumsum(totals) - totals)
            found = np.cumsum(cells)
            found -= before[node_of]
            found -= slot * totals[node_of]
            return found.astype(np.float64)

        G, H = left_of(level.first, level.gradient), left_of(level.second, level.hessian)
        total = level.gradient.astype(np.float64)[node_of]
        weight = level.hessian.astype(np.float64)[node_of]
        least, penalty_of = (rules.min_child_weight / hessian_unit)[node_of], penalty[node_of]
        open_ = level.live[node_of] & ~np.isnan(self.threshold[place])
        if closed is not None:
            open_ &= ~np.concatenate([closed, np.ones_like(closed[:1])])[slot, task[node_of]]

        def gains(G: Floats, H: Floats, open_: NDArray[np.bool_]) -> Floats:
            rest = weight - H
            allowed = open_ & (least <= H) & (least <= rest) & (H > 0) & (rest > 0)
            found = np.zeros(len(G))
            at = np.flatnonzero(allowed)
            G, H, rest, shrink = G[at], H[at], rest[at], penalty_of[at]
            limit = alpha[node_of[at]] if rules.reg_alpha else None
            found[at] = rules.clipped(G, limit) ** 2 / (H + shrink) + rules.clipped(
                total[at] - G, limit
            ) ** 2 / (rest + shrink)
            return found

        forward = gains(G, H, open_)
        top = np.maximum.reduceat(forward, starts)
        backward = None
        if self.holes:
            lost = self.lost[place]
            holed = lost >= 0
            at = (starts[node_of] + lost)[holed]
            G_back, H_back = G.copy(), H.copy()
            G_back[holed] += level.first[at]
            H_back[holed] += level.second[at]
            backward = gains(G_back, H_back, open_ & holed)
            top = np.maximum(top, np.maximum.reduceat(backward, starts))
        limit = TIED * top
        best, back = _first(forward >= limit[node_of], node_of, N), np.zeros(N, bool)
        if backward is not None:
            equal = backward >= limit[node_of]
            other = _first(equal, node_of, N)
            back = (best < 0) | ((other >= 0) & (slot[other] < slot[best]))
            # The last of several in its slot, as XGBoost's search from above finds it.
            equal &= slot == slot[other][node_of]
            hits = np.flatnonzero(equal)
            other[node_of[hits]] = hits
            best = np.where(back, other, best)
            G, H = (np.where(back, b[best], a[best]) for a, b in ((G, G_back), (H, H_back)))
        else:
            G, H = G[best], H[best]
        side = rules.clipped(level.gradient.astype(np.float64), alpha)
        gain = top - side**2 / np.maximum(level.hessian + penalty, 1e-300)
        gain *= gradient_unit**2 / hessian_unit
        gain[top <= 0] = 0
        chosen = np.minimum(slot[best], slots - 1)
        own = self.cells[level.row, chosen[level.node_of]]
        goes_left = own <= cell[best][level.node_of]
        if backward is not None:
            missing = np.where(back, self.lost[place[best]], -1)
            goes_left |= own == missing[level.node_of]
        return Best(
            gain, chosen, self.threshold[place[best]], back,
            (G.astype(np.int64), H.astype(np.int64)), level.row, level.node_of, goes_left,
        )  # fmt: skip

    def _divide(
        self, level: BinnedLevel, derivatives: Rounded, best: Best, kids: Children
    ) -> BinnedLevel:
        some: NDArray[np.bool_] = kids.live[0] | kids.live[1]
        parents = np.flatnonzero(some)
        number = np.cumsum(some) - 1
        small_left = kids.size[0] <= kids.size[1]
        kept = some[kids.of_row]
        row, parent, left = kids.row[kept], number[kids.of_row[kept]], kids.left[kept]
        small = left == small_left[parents][parent]
        task = kids.task[parents]
        counted = self._count(derivatives, task, row[small], parent[small])
        sums = []
        widths = self.widths[level.task]
        chosen = kids.parent[parents]
        whole = len(chosen) == len(level.node)
        mask = np.zeros(len(level.node), bool)
        mask[chosen] = True
        for less, more in zip(counted, (level.first, level.second), strict=True):
            former = more if whole else more[np.repeat(mask, widths)]
            sums.append(np.concatenate([less, former - less]))
        # The smaller children first, then the larger ones.
        which = np.stack([np.where(small_left, 0, 1), np.where(small_left, 1, 0)])[:, parents]

        def arranged(pairs: NDArray[Any]) -> NDArray[Any]:
            return np.take_along_axis(pairs[:, parents], which, 0).ravel()

        return BinnedLevel(
            arranged(kids.node), np.tile(task, 2), arranged(kids.size), arranged(kids.gradient),
            arranged(kids.hessian), row, parent + len(parents) * ~small, arranged(kids.live), *sums,
        )  # fmt: skip


def _summed(member: sparse.csc_array, values: NDArray[Any]) -> Ints:
    """Sums by cell of whole numbers, which float64 holds exactly below 2^53."""
    found: Ints = (member @ values.astype(np.float64)).astype(np.int64)
    return found


def _first(hits: NDArray[np.bool_], node_of: Ints, nodes: int) -> Ints:
    """First place of a hit in every node, -1 where there is none."""
    found = np.full(nodes, -1)
    places = np.flatnonzero(hits)[::-1]
    found[node_of[places]] = places
    return found
