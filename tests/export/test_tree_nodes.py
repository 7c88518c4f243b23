"""Nodes as the two operators for trees take them."""

from types import SimpleNamespace

import numpy as np

from export.tree_nodes import TASK, Nodes, copy_tree, ensemble, joined, regressor, search_tree

# x0 < 1 ? 10 : (x1 < 2 ? 20 : 30)
STUMPS = SimpleNamespace(
    left=np.array([1, -1, 3, -1, -1]),
    right=np.array([2, -1, 4, -1, -1]),
    feature=np.array([0, 0, 1, 0, 0]),
    threshold=np.array([1, 0, 2, 0, 0], np.float32),
    missing_left=np.array([True, False, False, False, False]),
    members=np.full(5, -1),
    value=np.array([0, 10, 0, 20, 30], np.float32),
    sets=(),
)


def walk(nodes, row, tree=0):
    """Value of the leaf that a row reaches."""
    place = {(t, n): i for i, (t, n) in enumerate(zip(nodes.tree, nodes.identity, strict=True))}
    i = place[tree, 0]
    while not nodes.leaf[i]:
        x = row[nodes.feature[i]]
        left = bool(nodes.missing[i]) if np.isnan(x) else x < nodes.threshold[i]
        i = place[tree, (nodes.true if left else nodes.false)[i]]
    return nodes.value[i]


def test_a_copied_tree_is_the_tree():
    nodes = Nodes()
    nodes.begin()
    assert copy_tree(nodes, STUMPS, 0, {}, 0, 0.5) == 0
    rows = [(0, 0), (1, 0), (1, 2), (np.nan, 5), (3, np.nan)]
    assert [walk(nodes, row) for row in rows] == [5, 10, 15, 5, 15]


def test_a_search_finds_the_tree_of_a_task_and_nothing_elsewhere():
    nodes = Nodes()
    nodes.begin()
    search_tree(nodes, STUMPS, {1: 0, 4: 2}, {TASK: 2}, 0, 6)
    found = [[walk(nodes, (0, x, task)) for x in (0, 5)] for task in range(7)]
    assert found == [[0, 0], [10, 10], [0, 0], [0, 0], [20, 30], [0, 0], [0, 0]]


def test_joined_ensembles_keep_their_trees():
    parts = []
    for factor in (1.0, 2.0):
        part = Nodes()
        part.begin()
        copy_tree(part, STUMPS, 0, {}, 0, factor)
        parts.append(part)
    whole = joined(parts)
    assert [walk(whole, (0, 0), tree) for tree in range(2)] == [10, 20]
    assert regressor(whole, 1, "BRANCH_LT")["target_weights"] == [10, 20, 30, 20, 40, 60]
    assert ensemble(whole, 1)["tree_roots"] == [0, 2]
