"""Trees that were grown together, and the rules by which they grew."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_tabular.boosting.objectives import Floats

Ints = NDArray[np.int64]

LEAST_GAIN = 1e-6
"""A split that gains less is none, as in XGBoost."""
TOP = float(np.finfo(np.float32).max)
"""Threshold that every number lies below."""
BITS = 32
"""Derivatives become whole numbers of 32 bits, in a unit of their task. Their sums have no rounding
error, so that neither the order of rows nor other tasks' rows matter."""


@dataclass(frozen=True, kw_only=True)
class TreeRules:
    """How trees grow; names and meanings are XGBoost's.

    Args:
        max_depth: at least 1.
        reg_lambda: quadratic penalty on leaf values.
        reg_alpha: absolute penalty on leaf values.
        min_child_weight: least sum of second derivatives in a leaf.
        gamma: least gain of a split.
    """

    max_depth: int
    reg_lambda: float = 1.0
    reg_alpha: float = 0.0
    min_child_weight: float = 1.0
    gamma: float = 0.0

    def clipped(self, gradient: Floats, alpha: Any) -> Floats:
        """Sums of first derivatives, moved towards zero by the absolute penalty."""
        if not self.reg_alpha:
            return gradient
        moved: Floats = np.sign(gradient) * np.maximum(np.abs(gradient) - alpha, 0)
        return moved


@dataclass(frozen=True)
class Rounded:
    """Derivatives of a chunk's rows as whole numbers, and the unit of every task.

    Args:
        gradient: (m,).
        hessian: (m,), or None where all rows have one unit.
        gradient_unit: (T,) powers of two.
        hessian_unit: (T,) likewise.
    """

    gradient: Ints
    hessian: Ints | None
    gradient_unit: NDArray[np.float64]
    hessian_unit: NDArray[np.float64]

    @classmethod
    def of(cls, gradient: Floats, hessian: Floats, sizes: Ints) -> Self:
        """Round.

        Args:
            gradient: (m,), rows of a task together.
            hessian: (m,), at least 0.
            sizes: (T,) rows of every task, at least 1.
        """
        whole, unit = _whole_numbers(gradient, sizes)
        if (hessian == hessian[0]).all():
            one = np.full(len(sizes), float(hessian[0]))
            return cls(whole, None, unit, one)
        weights, weight_unit = _whole_numbers(hessian, sizes)
        return cls(whole, weights, unit, weight_unit)


def _whole_numbers(values: Floats, sizes: Ints) -> tuple[Ints, NDArray[np.float64]]:
    values = values.astype(np.float64)
    starts = np.cumsum(sizes) - sizes
    largest = np.maximum.reduceat(np.abs(values), starts)
    bits = np.minimum(BITS, 52 - np.ceil(np.log2(sizes))).astype(np.int64)
    unit = np.ldexp(1.0, np.frexp(largest)[1] - bits)
    unit[largest == 0] = 1.0
    return np.rint(values / np.repeat(unit, sizes)).astype(np.int64), unit


@dataclass
class Grown:
    """Trees of several tasks as one table of nodes; a right child follows its sibling.

    Args:
        roots: (T,) node of every task's root, -1 where it has no tree.
        left: (nodes,) first child, -1 of a leaf.
        feature: (nodes,) of the split.
        threshold: (nodes,) float32; smaller values go left.
        missing_left: (nodes,) whether missing values go left.
        gain: (nodes,) of the split, 0 of a leaf.
        value: (nodes,) float32 of a leaf, learning rate included.
    """

    roots: Ints
    left: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    gain: NDArray[np.float32]
    value: NDArray[np.float32]

    @classmethod
    def join(cls, parts: list[Self], tasks: list[Ints], count: int) -> Self:
        """Trees of different tasks as one table.

        Args:
            parts: tables of some tasks each.
            tasks: of every part, which of all tasks its roots belong to.
            count: T, of all tasks.
        """
        offsets = np.cumsum([0, *(len(part.left) for part in parts)])
        roots = np.full(count, -1, dtype=np.int64)
        for part, own, offset in zip(parts, tasks, offsets, strict=False):
            roots[own] = part.roots + offset

        def joined(name: str, dtype: Any) -> NDArray[Any]:
            return np.concatenate([np.empty(0, dtype), *(getattr(p, name) for p in parts)])

        left = joined("left", np.int32)
        shift = np.repeat(offsets[:-1], np.diff(offsets)).astype(np.int32)
        return cls(
            roots, np.where(left < 0, left, left + shift).astype(np.int32),
            joined("feature", np.int32), joined("threshold", np.float32),
            joined("missing_left", np.bool_), joined("gain", np.float32),
            joined("value", np.float32),
        )  # fmt: skip

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.left)

    def state(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The trees of `state`."""
        return cls(**{name: np.array(state[name], dtype) for name, dtype in _TYPES.items()})

    def tasks(self) -> Ints:
        """Task (nodes,) of every node."""
        found = np.full(len(self), -1, dtype=np.int64)
        grown = np.flatnonzero(self.roots >= 0)
        nodes = self.roots[grown]
        found[nodes] = grown
        while len(nodes):
            parents = nodes[self.left[nodes] >= 0]
            nodes = np.concatenate([self.left[parents], self.left[parents] + 1])
            found[nodes] = np.tile(found[parents], 2)
        return found


_TYPES = {
    "roots": np.int64, "left": np.int32, "feature": np.int32, "threshold": np.float32,
    "missing_left": np.bool_, "gain": np.float32, "value": np.float32,
}  # fmt: skip


@dataclass
class Nodes:
    """A table of nodes while it grows, level by level.

    Args:
        rules: by which it grows.
        units: of the derivatives.
        roots: number of trees, which the first nodes are the roots of.
    """

    rules: TreeRules
    units: Rounded
    roots: int
    task: list[Ints] = field(default_factory=list)
    gradient: list[Ints] = field(default_factory=list)
    hessian: list[Ints] = field(default_factory=list)
    splits: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    count: int = 0

    def add(self, task: Ints, gradient: Ints, hessian: Ints) -> None:
        """Nodes with their sums of derivatives."""
        self.task.append(task)
        self.gradient.append(gradient)
        self.hessian.append(hessian)
        self.count += len(task)

    def split(
        self,
        nodes: Ints,
        feature: Ints,
        threshold: Floats,
        missing_left: NDArray[np.bool_],
        gain: Floats,
        left: tuple[Ints, Ints],
        whole: tuple[Ints, Ints],
        task: Ints,
    ) -> Ints:
        """Give nodes two children each.

        Args:
            nodes: (N,).
            feature: (N,).
            threshold: (N,).
            missing_left: (N,).
            gain: (N,).
            left: sums of first and second derivatives (N,) of the left children.
            whole: of the nodes.
            task: (N,) of the nodes.

        Returns:
            (N,) left children; a right child follows its sibling.
        """
        first: Ints = self.count + 2 * np.arange(len(nodes))
        self.splits.append((nodes, feature, threshold, missing_left, gain, first))
        sums = [np.stack([a, b - a], 1).ravel() for a, b in zip(left, whole, strict=True)]
        self.add(np.repeat(task, 2), *sums)
        return first

    def finish(self, learning_rate: NDArray[np.float64]) -> Grown:
        """The table, with Newton leaves.

        Args:
            learning_rate: (T,) of every task.
        """
        task = np.concatenate(self.task)
        G = np.concatenate(self.gradient) * self.units.gradient_unit[task]
        H = np.concatenate(self.hessian) * self.units.hessian_unit[task]
        rules = self.rules
        allowed = (rules.min_child_weight <= H) & (H > 0)
        value = np.zeros(len(G))
        step = -rules.clipped(G, rules.reg_alpha)
        np.divide(step, H + rules.reg_lambda, out=value, where=allowed)
        left = np.full(len(G), -1, np.int32)
        feature = np.zeros(len(G), np.int32)
        threshold, gain = np.zeros(len(G), np.float32), np.zeros(len(G), np.float32)
        missing_left = np.zeros(len(G), bool)
        for nodes, f, limit, missing, won, first in self.splits:
            left[nodes], feature[nodes], threshold[nodes] = first, f, limit
            missing_left[nodes], gain[nodes] = missing, won
        value = np.where(left < 0, value * learning_rate[task], 0)
        return Grown(
            np.arange(self.roots), left, feature, threshold, missing_left, gain,
            value.astype(np.float32),
        )  # fmt: skip
