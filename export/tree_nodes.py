"""Nodes of tree ensembles as the operators of ``ai.onnx.ml`` take them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

Ints: TypeAlias = NDArray[np.int64]

TASK = "task"
"""Key of the task's column among the places of columns."""
LESS = 1
"""``BRANCH_LT`` in a `TreeEnsemble`; splits of XGBoost go left where the value is smaller."""


class Trees(Protocol):
    """Arrays of many trees, see `mtl_tabular.boosting.tables.TreeTable`."""

    roots: Ints
    rounds: Ints
    targets: Ints
    tasks: Ints
    left: Ints
    right: Ints
    feature: Ints
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    members: Ints
    value: NDArray[np.float32]
    sets: tuple[tuple[int, ...], ...]


@dataclass
class Nodes:
    """Nodes of an ensemble as they are written, one entry a node."""

    tree: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    true: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    leaf: list[bool] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    identity: list[int] = field(default_factory=list)
    count: int = 0
    trees: int = 0

    def begin(self) -> None:
        """Start another tree."""
        self.trees += 1
        self.count = 0

    def add(self, *, leaf: bool, target: int, value: float = 0.0) -> int:
        """A node of the present tree; its place in the lists. A split is filled in later."""
        self.tree.append(self.trees - 1)
        self.identity.append(self.count)
        self.count += 1
        for held in (self.feature, self.true, self.false, self.missing):
            held.append(0)
        self.threshold.append(0.0)
        self.leaf.append(leaf)
        self.value.append(value)
        self.target.append(target)
        return len(self.tree) - 1

    def split(self, place: int, feature: int, threshold: float, missing: bool) -> None:
        """Make a node a split."""
        self.feature[place] = feature
        self.threshold[place] = threshold
        self.missing[place] = int(missing)


def copy_tree(
    nodes: Nodes,
    trees: Trees,
    root: int,
    places: dict[Any, int],
    target: int,
    factor: float,
) -> int:
    """Write a tree below the present one; the identity of its root."""
    first = -1
    waiting = [(root, -1, False)]
    while waiting:
        node, parent, yes = waiting.pop()
        leaf = bool(trees.left[node] < 0)
        value = float(np.float32(factor * float(trees.value[node]))) if leaf else 0.0
        place = nodes.add(leaf=leaf, target=target, value=value)
        if parent >= 0:
            (nodes.true if yes else nodes.false)[parent] = nodes.identity[place]
        else:
            first = nodes.identity[place]
        if leaf:
            continue
        feature, threshold = int(trees.feature[node]), float(trees.threshold[node])
        if trees.members[node] >= 0:
            held = tuple(sorted(trees.sets[trees.members[node]]))
            feature, threshold = places[feature, held], 0.5
        nodes.split(place, feature, threshold, bool(trees.missing_left[node]))
        waiting.append((int(trees.right[node]), place, False))
        waiting.append((int(trees.left[node]), place, True))
    return first


def search_tree(
    nodes: Nodes,
    trees: Trees,
    roots: dict[int, int],
    places: dict[Any, int],
    target: int,
    count: int,
) -> None:
    """Write a binary search on the task's place, with the tasks' trees at its ends."""

    def write(low: int, high: int) -> int:
        """The part for places low to before high; its identity."""
        inside = [r for r in roots if low <= r < high]
        if not inside:
            return nodes.identity[nodes.add(leaf=True, target=target)]
        if high - low == 1:
            return copy_tree(nodes, trees, roots[low], places, target, 1.0)
        middle = (low + high) // 2
        place = nodes.add(leaf=False, target=target)
        nodes.split(place, places[TASK], middle - 0.5, missing=False)
        nodes.true[place] = write(low, middle)
        nodes.false[place] = write(middle, high)
        return nodes.identity[place]

    write(0, count + 1)


def joined(parts: Sequence[Nodes]) -> Nodes:
    """One ensemble of several."""
    whole = Nodes()
    for part in parts:
        whole.tree += [tree + whole.trees for tree in part.tree]
        for name in ("feature", "threshold", "true", "false", "missing", "leaf", "value", "target"):
            getattr(whole, name).extend(getattr(part, name))
        whole.identity += part.identity
        whole.trees += part.trees
    return whole


def regressor(nodes: Nodes, targets: int, less: str) -> dict[str, Any]:
    """Attributes of `TreeEnsembleRegressor` (``ai.onnx.ml`` 3).

    Args:
        nodes: of the ensemble.
        targets: number of scores.
        less: mode of the splits.
    """
    leaves = [i for i, leaf in enumerate(nodes.leaf) if leaf]
    return {
        "n_targets": targets,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
        "nodes_treeids": nodes.tree,
        "nodes_nodeids": nodes.identity,
        "nodes_featureids": nodes.feature,
        "nodes_values": nodes.threshold,
        "nodes_modes": ["LEAF" if leaf else less for leaf in nodes.leaf],
        "nodes_truenodeids": nodes.true,
        "nodes_falsenodeids": nodes.false,
        "nodes_missing_value_tracks_true": nodes.missing,
        "target_treeids": [nodes.tree[i] for i in leaves],
        "target_nodeids": [nodes.identity[i] for i in leaves],
        "target_ids": [nodes.target[i] for i in leaves],
        "target_weights": [nodes.value[i] for i in leaves],
    }


def ensemble(nodes: Nodes, targets: int) -> dict[str, Any]:
    """Attributes of `TreeEnsemble`: splits and leaves have numbers of their own."""
    starts = {tree: i for i, tree in reversed(list(enumerate(nodes.tree)))}
    splits: list[int] = []
    leaves: list[int] = []
    number: dict[int, int] = {}
    for i, leaf in enumerate(nodes.leaf):
        held = leaves if leaf else splits
        number[i] = len(held)
        held.append(i)
    feature = [nodes.feature[i] for i in splits]
    threshold = [nodes.threshold[i] for i in splits]
    missing = [nodes.missing[i] for i in splits]
    ends: dict[str, list[int]] = {"true": [], "false": []}
    kinds: dict[str, list[int]] = {"true": [], "false": []}
    for i in splits:
        for side, children in (("true", nodes.true), ("false", nodes.false)):
            child = starts[nodes.tree[i]] + children[i]
            ends[side].append(number[child])
            kinds[side].append(int(nodes.leaf[child]))
    roots = []
    for tree in range(nodes.trees):
        first = starts[tree]
        if not nodes.leaf[first]:
            roots.append(number[first])
            continue
        roots.append(len(feature))  # a tree of one leaf: a split whose sides are that leaf
        feature.append(0)
        threshold.append(0.0)
        missing.append(0)
        for side in ends:
            ends[side].append(number[first])
            kinds[side].append(1)
    modes = np.full(len(feature), LESS, np.uint8)
    return {
        "n_targets": targets,
        "aggregate_function": 1,
        "post_transform": 0,
        "tree_roots": roots,
        "nodes_featureids": feature,
        "nodes_splits": numpy_helper.from_array(np.array(threshold, np.float32)),
        "nodes_modes": numpy_helper.from_array(modes),
        "nodes_truenodeids": ends["true"],
        "nodes_falsenodeids": ends["false"],
        "nodes_trueleafs": kinds["true"],
        "nodes_falseleafs": kinds["false"],
        "nodes_missing_value_tracks_true": missing,
        "leaf_targetids": [nodes.target[i] for i in leaves],
        "leaf_weights": numpy_helper.from_array(
            np.array([nodes.value[i] for i in leaves], np.float32)
        ),
    }
