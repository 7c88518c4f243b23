"""Trained trees as plain arrays, for graphs that are written without XGBoost."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.blocks import TreeBlock
from mtl_tabular.boosting.boosters import TaskBoosters
from mtl_tabular.boosting.forest import TaskForest
from mtl_tabular.boosting.grown import Grown

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TreeTable:
    """Many trees as one table of N nodes.

    A row goes left where its feature is below the threshold, or, at a split of categories, where
    its code is not in the node's set. Missing values go where `missing_left` says.

    Args:
        roots: (R,) node at which a tree begins.
        rounds: (R,) of boosting.
        targets: (R,) which of several scores the tree adds to.
        tasks: (R,) of trees that belong to a task, else -1.
        left: (N,) child, -1 of a leaf.
        right: (N,) likewise.
        feature: (N,) position of the split's feature.
        threshold: (N,) float32.
        missing_left: (N,) bool.
        members: (N,) position in `sets` of a split of categories, else -1.
        value: (N,) float32 of a leaf.
        sets: codes that go right.
    """

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
    sets: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def empty(cls) -> Self:
        """No tree."""
        return cls.join([])

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The trees of several tables, in order."""
        nodes = np.cumsum([0, *(len(part.left) for part in parts)])
        sets = np.cumsum([0, *(len(part.sets) for part in parts)])

        def moved(name: str, by: Ints) -> Ints:
            held = [getattr(part, name) for part in parts]
            found = [np.where(a < 0, a, a + b) for a, b in zip(held, by, strict=False)]
            return np.concatenate([np.empty(0, np.int64), *found]).astype(np.int64)

        def plain(name: str, kind: Any) -> Any:
            return np.concatenate([np.empty(0, kind), *(getattr(p, name) for p in parts)])

        return cls(
            roots=moved("roots", nodes),
            rounds=plain("rounds", np.int64),
            targets=plain("targets", np.int64),
            tasks=plain("tasks", np.int64),
            left=moved("left", nodes),
            right=moved("right", nodes),
            feature=plain("feature", np.int64),
            threshold=plain("threshold", np.float32),
            missing_left=plain("missing_left", np.bool_),
            members=moved("members", sets),
            value=plain("value", np.float32),
            sets=tuple(held for part in parts for held in part.sets),
        )

    def scores(self, values: NDArray[np.float32], targets: int) -> NDArray[np.float64]:
        """Sums (n, targets) of all trees on rows (n, F), whatever task the trees belong to.

        A plain walk, for checks.
        """
        found = np.zeros((len(values), targets))
        rows = np.arange(len(values))
        for root, target in zip(self.roots, self.targets, strict=True):
            node = np.full(len(values), root)
            while (self.left[node] >= 0).any():
                x = values[rows, self.feature[node]]
                right = x >= self.threshold[node]
                for i in np.flatnonzero(self.members[node] >= 0):
                    right[i] = float(x[i]) in self.sets[self.members[node[i]]]
                right = np.where(np.isnan(x), ~self.missing_left[node], right)
                further = np.where(right, self.right[node], self.left[node])
                node = np.where(self.left[node] < 0, node, further)
            found[:, target] += self.value[node]
        return found


@dataclass(frozen=True, kw_only=True)
class BoostedTables:
    """A model of trees as arrays: link(A (base_r + a(x) + Σ_g π_rg f_g(x) + d_r(x))) for task r.

    Arrays over tasks have T + 1 entries; the last one is for tasks that training did not have, NaN
    where the model has no prediction for them.

    Args:
        tasks: names, in the order of task ids.
        width: F, features of a row.
        outputs: K, scores before `mixing`.
        shared: trees of a and of f: target k of a is k, that of group g is K (1 + g) + k.
        own: trees of d.
        shares: π (T + 1, G).
        base: (T + 1, K).
        mixing: A (C, K).
        offset: (C,), added behind `mixing`.
        scale: (T + 1,) factor on a number.
        shift: (T + 1,) added to a number.
        link: ``identity``, ``sigmoid`` or ``softmax``.
        task_feature: how trees see the task, behind the features: ``none``, one ``categorical``
            feature (its code, missing where unknown), ``one-hot`` ones.
        codes: (T + 1,) code of a task in that feature, -1 where unknown.
        seen: number of codes.
    """

    tasks: tuple[str, ...]
    width: int
    outputs: int
    shared: TreeTable
    own: TreeTable
    shares: NDArray[np.float64]
    base: NDArray[np.float64]
    mixing: NDArray[np.float64]
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    link: str
    task_feature: str
    codes: Ints
    seen: int

    @property
    def groups(self) -> int:
        """G."""
        return int(self.shares.shape[1])

    @property
    def nodes(self) -> int:
        """Nodes of all trees."""
        return len(self.shared.left) + len(self.own.left)


def booster_table(
    booster: xgb.Booster | None, *, task: int = -1, first_target: int = 0
) -> TreeTable:
    """The trees of a booster; those with a vector in each leaf become one an entry.

    Args:
        booster: of XGBoost, with trees; None has none.
        task: that the trees belong to.
        first_target: added to the booster's own targets.

    Raises:
        ArgumentError: trees of a kind that is not read (linear models, DART).
    """
    if booster is None:
        return TreeTable.empty()
    held = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    if held.get("name", "gbtree") != "gbtree":
        raise ArgumentError("booster", "hold plain trees (gbtree)", held["name"])
    model = held["model"]
    ends = np.array(model["iteration_indptr"])
    parts = []
    for i, (tree, target) in enumerate(zip(model["trees"], model["tree_info"], strict=True)):
        number = int(np.searchsorted(ends, i, side="right")) - 1
        parts += _tree(tree, number, task, first_target + int(target))
    return TreeTable.join(parts)


def _tree(tree: dict[str, Any], number: int, task: int, target: int) -> list[TreeTable]:
    left = np.array(tree["left_children"], dtype=np.int64)
    right = np.array(tree["right_children"], dtype=np.int64)
    leaf = left < 0
    vector = int(tree["tree_param"]["size_leaf_vector"])
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    members = np.full(len(left), -1, dtype=np.int64)
    members[np.array(tree["categories_nodes"], dtype=np.int64)] = np.arange(
        len(tree["categories_nodes"])
    )
    codes = tree["categories"]
    sets = tuple(
        tuple(int(code) for code in codes[start : start + size])
        for start, size in zip(tree["categories_segments"], tree["categories_sizes"], strict=True)
    )
    if vector > 1:
        if "leaf_weights" not in tree:
            rule = "be of an XGBoost that saves leaf_weights (3.2 does)"
            raise ArgumentError("trees with vectors in their leaves", rule, xgb.__version__)
        weights = np.array(tree["leaf_weights"], dtype=np.float32).reshape(-1, vector)
        values = np.zeros((len(left), vector), np.float32)
        values[leaf] = weights[right[leaf]]
    else:
        values = np.where(leaf, conditions, np.float32(0))[:, None]
    common: dict[str, Any] = {
        "roots": np.zeros(1, np.int64),
        "rounds": np.array([number]),
        "tasks": np.array([task]),
        "left": np.where(leaf, -1, left),
        "right": np.where(leaf, -1, right),
        "feature": np.array(tree["split_indices"], dtype=np.int64),
        "threshold": np.where(leaf, np.float32(0), conditions).astype(np.float32),
        "missing_left": np.array(tree["default_left"], dtype=bool),
        "members": members,
        "sets": sets,
    }
    return [
        TreeTable(targets=np.array([target + k]), value=values[:, k], **common)
        for k in range(vector)
    ]


def block_table(block: TreeBlock, first_target: int) -> TreeTable:
    """The trees of a shared block or of a group."""
    return booster_table(block.booster, first_target=first_target)


def own_table(own: TaskForest | TaskBoosters) -> TreeTable:
    """The trees of the task blocks."""
    if isinstance(own, TaskBoosters):
        parts = [booster_table(block.booster, task=r) for r, block in enumerate(own)]
        return TreeTable.join(parts)
    return TreeTable.join(
        [_grown(tree, i, k) for i, trees in enumerate(own.trees) for k, tree in enumerate(trees)]
    )


def _grown(tree: Grown, number: int, target: int) -> TreeTable:
    tasks = np.flatnonzero(tree.roots >= 0)
    leaf = tree.left < 0
    left = tree.left.astype(np.int64)
    return TreeTable(
        roots=tree.roots[tasks].astype(np.int64),
        rounds=np.full(len(tasks), number),
        targets=np.full(len(tasks), target),
        tasks=tasks,
        left=left,
        right=np.where(leaf, -1, left + 1),
        feature=tree.feature.astype(np.int64),
        threshold=tree.threshold.astype(np.float32),
        missing_left=tree.missing_left.astype(bool),
        members=np.full(len(left), -1, dtype=np.int64),
        value=np.where(leaf, tree.value, np.float32(0)).astype(np.float32),
    )


def base_margins(booster: xgb.Booster, objective: str) -> NDArray[np.float64]:
    """The scores (K,) that a booster starts from, as margins.

    Args:
        booster: trained.
        objective: XGBoost's name, which says how the stored number is meant.
    """
    held = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
    values: Iterable[Any] = json.loads(held) if held.startswith("[") else [held]
    numbers = np.array([float(value) for value in values])
    if objective == "binary:logistic":
        numbers = np.array([math.log(p / (1 - p)) for p in numbers])
    return numbers
