"""Properties: splits are those of a brute search, whatever other tasks and the order of rows."""

import numpy as np
import pytest

from mtl_tabular.boosting.grown import TOP, Rounded, TreeRules
from mtl_tabular.boosting.sorted_columns import MISSING, SortedColumns, bin_sorted

SIZES = np.array([25, 1, 40])


def table(seed=0, *, holes=True, ties=True, sizes=SIZES):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(sizes.sum(), 4)).astype(np.float32)
    if ties:
        values[:, 0] = values[:, 0].round()
    if holes:
        values[rng.random(len(values)) < 0.3, 1] = np.nan
    gradient = rng.normal(size=len(values))
    hessian = rng.uniform(0.2, 2, size=len(values))
    return values, gradient, hessian


def stump(values, gradient, hessian, sizes, **rules):
    columns = SortedColumns.of(values, sizes, 256)
    derivatives = Rounded.of(gradient, hessian, sizes)
    return columns.grow(derivatives, TreeRules(max_depth=1, **rules), np.ones(len(sizes)))


def best_gain(values, gradient, hessian, *, reg_lambda=1.0, reg_alpha=0.0, min_child_weight=1.0):
    """The largest gain of all splits of one task, each tried by itself."""

    def score(chosen):
        G, H = gradient[chosen].sum(), hessian[chosen].sum()
        return np.maximum(abs(G) - reg_alpha, 0) ** 2 / (H + reg_lambda)

    best = 0.0
    for column in values.T:
        for limit in [*np.unique(column[~np.isnan(column)]), np.inf]:
            for left in (column < limit, (column < limit) | np.isnan(column)):
                weights = hessian[left].sum(), hessian[~left].sum()
                if left.any() and not left.all() and min(weights) >= min_child_weight:
                    gain = score(left) + score(~left) - score(np.ones(len(column), bool))
                    best = max(best, gain)
    return best


RULES = [
    {},
    {"reg_lambda": 0.0, "min_child_weight": 3.0},
    {"reg_alpha": 0.7},
    {"min_child_weight": 0.0},
]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("holes", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_gain_is_that_of_a_brute_search(seed, holes, equal, rules):
    values, gradient, hessian = table(seed, holes=holes, ties=seed != 1)
    if equal:
        hessian[:] = 1.0
    tree, leaf = stump(values, gradient, hessian, SIZES, **rules)
    start = 0
    for t, size in enumerate(SIZES):
        own = slice(start, start + size)
        start += size
        expected = best_gain(values[own], gradient[own], hessian[own], **rules)
        assert tree.gain[t] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        if tree.left[t] < 0:
            assert expected <= 1e-6
            continue
        # The recorded split sends rows where they are said to be.
        column = values[own, tree.feature[t]]
        left = np.where(np.isnan(column), tree.missing_left[t], column < tree.threshold[t])
        np.testing.assert_array_equal(leaf[own], tree.left[t] + ~left.astype(bool))


@pytest.mark.parametrize("equal", [True, False])
def test_neither_other_tasks_nor_the_order_of_rows_matter(equal):
    values, gradient, hessian = table(5)
    if equal:
        hessian[:] = 1.0
    rules, rates = TreeRules(max_depth=4, min_child_weight=0.5), np.ones(3)

    def outputs(columns, sizes, *derivatives):
        rounded = Rounded.of(*derivatives, sizes)
        tree, leaf = columns.grow(rounded, rules, rates[: len(sizes)])
        return tree.value[leaf]

    found = outputs(SortedColumns.of(values, SIZES, 256), SIZES, gradient, hessian)
    mixed = np.concatenate([np.random.default_rng(0).permutation(25), np.arange(25, 66)])
    again = outputs(
        SortedColumns.of(values[mixed], SIZES, 256), SIZES, gradient[mixed], hessian[mixed]
    )
    np.testing.assert_array_equal(again, found[mixed])
    last = SortedColumns.of(values[26:], SIZES[2:], 256)
    np.testing.assert_array_equal(outputs(last, SIZES[2:], gradient[26:], hessian[26:]), found[26:])
    assert len(np.unique(found)) > 6


def test_monotone_maps_of_a_column_grow_the_same_partition():
    values, gradient, hessian = table(6)
    _, leaf = stump(values, gradient, hessian, SIZES)
    _, again = stump(np.exp(values), gradient, hessian, SIZES)
    np.testing.assert_array_equal(leaf, again)


def test_features_of_one_value_are_left_out():
    values, *_ = table(0, holes=False, ties=False)
    values[:25, [0, 2]] = 7.0
    values[26:, 1] = np.nan
    columns = SortedColumns.of(values, SIZES, 256)
    assert columns.features[:2, 0].tolist() == [1, 3]
    assert columns.features[:, 2].tolist() == [0, 2, 3]


def test_bins_of_few_values():
    values = np.array([1, 1, 2, np.nan, 5, 5], np.float32)
    bins, lower, upper, varied = bin_sorted(
        values, np.array([0] * 4 + [1] * 2), np.array([4, 2]), 8
    )
    assert bins.tolist() == [0, 0, 2, MISSING, 4, 4]
    assert lower[[0, 2, 4]].tolist() == [1, 2, 5]
    assert upper[[0, 2, 4]].tolist() == [2, np.float32(TOP), np.float32(TOP)]
    assert varied.tolist() == [True, False]


@pytest.mark.parametrize("max_bin", [2, 5, 16])
def test_many_values_share_few_bins_of_like_size(max_bin):
    values = np.sort(np.random.default_rng(0).normal(size=100)).astype(np.float32)
    bins, lower, upper, _ = bin_sorted(values, np.zeros(100, np.int64), np.array([100]), max_bin)
    _, counts = np.unique(bins, return_counts=True)
    assert len(counts) == max_bin
    assert counts.max() - counts.min() <= 1
    assert ((lower <= values) & (values < upper)).all()
