"""Whether a graph of trees sends rows to the leaves that its arrays say."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from export.trees import Tables, tree_graph

Values: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]
Run: TypeAlias = Callable[[onnx.ModelProto, Values, Ids], NDArray[Any]]

EXACT = 1 << 24
"""Sums of whole numbers below this are exact in float32."""


def leaf_mismatches(
    tables: Tables, features: Values, ids: Ids, run: Run, *, seed: int = 0, **options: Any
) -> int:
    """Rows that a graph sends to another leaf of some tree than a walk of the arrays does.

    In a copy of the model leaves get random whole numbers for their values and shares become 1, so
    that the sums of its graph are exact and name the leaves that were reached. A wrong leaf goes
    unseen where it drew the right one's number, once in thousands of rows.

    Args:
        tables: the model.
        features: (n, F).
        ids: (n,) tasks; any number but 0..T-1 is an unknown one.
        run: a graph on features and tasks.
        seed: of the numbers.
        options: of `export.trees.tree_graph`, for all tasks in one graph.
    """
    marked = _marked(tables, np.random.default_rng(seed))
    T = len(tables.tasks)
    slots = np.where((ids < 0) | (ids >= T), T, ids)
    found = run(tree_graph(marked, **options), features, ids)
    return int((found != walk(marked, features, slots)).any(1).sum())


def walk(tables: Tables, features: Values, slots: Ids) -> NDArray[np.float64]:
    """Scores (n, K) of all trees, without base and mixing, tree by tree.

    Args:
        tables: the model.
        features: (n, F).
        slots: (n,) in 0..T; T is a task that training did not have.
    """
    values, K = _with_task(tables, features, slots), tables.outputs
    total = np.zeros((len(values), K))
    shares = np.concatenate([np.ones((len(tables.shares), 1)), tables.shares], 1)[slots]
    trees = tables.shared
    for root, target in zip(trees.roots, trees.targets, strict=True):
        leaf = leaves(trees, int(root), values)
        total[:, target % K] += shares[:, target // K] * trees.value[leaf]
    trees = tables.own
    for i in np.flatnonzero(trees.tasks >= 0):
        rows = np.flatnonzero(slots == trees.tasks[i])
        leaf = leaves(trees, int(trees.roots[i]), values[rows])
        total[rows, trees.targets[i]] += trees.value[leaf]
    return total


def leaves(trees: Any, root: int, values: Values) -> Ids:
    """Nodes (n,) at which rows end in one tree.

    Args:
        trees: see `mtl_tabular.boosting.tables.TreeTable`.
        root: of the tree.
        values: (n, F), with what trees see of the task.
    """
    node = np.full(len(values), root)
    rows = np.arange(len(values))
    while (trees.left[node] >= 0).any():
        x = values[rows, trees.feature[node]]
        right = x >= trees.threshold[node]
        for place in np.unique(trees.members[node]):
            if place >= 0:
                held = np.isin(x, np.array(trees.sets[place], np.float32))
                right = np.where(trees.members[node] == place, held, right)
        right = np.where(np.isnan(x), ~trees.missing_left[node], right)
        further = np.where(right, trees.right[node], trees.left[node])
        node = np.where(trees.left[node] < 0, node, further)
    return node


def _with_task(tables: Tables, features: Values, slots: Ids) -> Values:
    codes = tables.codes[slots]
    if tables.task_feature == "categorical":
        added = np.where(codes < 0, np.nan, codes).astype(np.float32)[:, None]
    elif tables.task_feature == "one-hot":
        added = (codes[:, None] == np.arange(tables.seen)).astype(np.float32)
    else:
        return features
    return np.concatenate([features, added], 1)


def _marked(tables: Any, rng: np.random.Generator) -> Tables:
    trees = len(tables.shared.roots) + len(tables.own.roots)
    most = max(2, EXACT // max(1, trees))

    def coded(held: Any) -> Any:
        value = rng.integers(1, most, len(held.value)).astype(np.float32)
        return replace(held, value=np.where(held.left < 0, value, np.float32(0)))

    count, K = len(tables.tasks) + 1, tables.outputs
    found: Tables = replace(
        tables,
        shared=coded(tables.shared),
        own=coded(tables.own),
        shares=(tables.shares != 0).astype(np.float64),
        base=np.zeros((count, K)),
        mixing=np.eye(K),
        offset=np.zeros(K),
        scale=np.ones(count),
        shift=np.zeros(count),
        link="identity",
    )
    return found
