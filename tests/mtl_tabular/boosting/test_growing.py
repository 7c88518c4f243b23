"""Properties of growth that hold however splits are found."""

import numpy as np
import pytest

from mtl_tabular.boosting.grown import Rounded, TreeRules
from mtl_tabular.boosting.sorted_columns import SortedColumns

SIZES = np.array([50, 30])
RATES = np.array([1.0, 0.1])


def grown(allowed=None, seed=0, **rules):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(80, 3)).astype(np.float32)
    values[::7, 2] = np.nan
    gradient, hessian = rng.normal(size=80), rng.uniform(0.5, 1.5, size=80)
    columns = SortedColumns.of(values, SIZES, 256)
    options = {"max_depth": 3} | rules
    tree, leaf = columns.grow(
        Rounded.of(gradient, hessian, SIZES), TreeRules(**options), RATES, allowed
    )
    return tree, leaf, values, gradient, hessian


def depths(tree):
    found = np.zeros(len(tree), int)
    for node in range(len(tree)):
        if tree.left[node] >= 0:
            found[tree.left[node] : tree.left[node] + 2] = found[node] + 1
    return found


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_rows_walk_to_the_leaf_that_they_are_said_to_be_in(depth):
    tree, leaf, values, *_ = grown(max_depth=depth)
    for row, task in enumerate(np.repeat([0, 1], SIZES)):
        node = tree.roots[task]
        while tree.left[node] >= 0:
            x = values[row, tree.feature[node]]
            goes_left = tree.missing_left[node] if np.isnan(x) else x < tree.threshold[node]
            node = tree.left[node] + (not goes_left)
        assert node == leaf[row]
    assert depths(tree).max() <= depth
    assert set(leaf) == set(np.flatnonzero(tree.left < 0))


@pytest.mark.parametrize("rules", [{}, {"reg_lambda": 0.0}, {"reg_alpha": 0.5}])
def test_leaves_are_newton_steps_of_their_rows(rules):
    tree, leaf, _, gradient, hessian = grown(**rules)
    tasks = tree.tasks()
    for node in np.unique(leaf):
        G, H = gradient[leaf == node].sum(), hessian[leaf == node].sum()
        G = np.sign(G) * max(abs(G) - rules.get("reg_alpha", 0.0), 0)
        expected = -RATES[tasks[node]] * G / (H + rules.get("reg_lambda", 1.0))
        assert tree.value[node] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_rules_bound_leaves_and_gains():
    tree, leaf, _, _, hessian = grown(min_child_weight=6.0, max_depth=6)
    assert (np.bincount(leaf, hessian)[np.unique(leaf)] >= 6 - 1e-6).all()
    free, *_ = grown(max_depth=6)
    bound = float(np.median(free.gain[free.left >= 0]))
    tree, *_ = grown(gamma=bound, max_depth=6)
    assert (tree.gain[tree.left >= 0] >= bound).all()
    assert len(tree) < len(free)


def test_no_gain_is_enough_for_no_split():
    tree, leaf, *_ = grown(gamma=1e9)
    assert len(tree) == 2
    assert leaf.tolist() == [0] * 50 + [1] * 30


def test_closed_features_are_not_split():
    allowed = np.array([[True, False], [False, True], [False, True]])
    tree, *_ = grown(allowed, max_depth=4)
    inner, tasks = tree.left >= 0, tree.tasks()
    assert set(tree.feature[inner & (tasks == 0)]) == {0}
    assert set(tree.feature[inner & (tasks == 1)]) == {1, 2}
    none, *_ = grown(np.zeros((3, 2), bool))
    assert len(none) == 2


def test_all_allowed_is_no_restriction():
    tree, leaf, *_ = grown(np.ones((3, 2), bool))
    expected, place, *_ = grown()
    assert tree.state() == expected.state()
    np.testing.assert_array_equal(leaf, place)
