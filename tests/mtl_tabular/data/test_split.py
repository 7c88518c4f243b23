"""Divisions of a table."""

import numpy as np
import pandas as pd
import pytest

from mtl_core.errors import ArgumentError
from mtl_tabular.data import ColumnError
from mtl_tabular.data.split import TEST, TRAIN, VAL, assign_groups, assign_random


def classes(rows=1000, seed=0):
    rng = np.random.default_rng(seed)
    return [
        pd.Series(rng.choice(["a", "b", None], rows, p=[0.8, 0.15, 0.05]), name="kind"),
        pd.Series(rng.choice([0, 1], rows, p=[0.9, 0.1]), name="click"),
    ]


def test_every_combination_is_divided_alike():
    columns = classes()
    parts = assign_random(columns, 1000, val=0.2, test=0.1, seed=0)
    assert (parts == VAL).sum() == 200
    assert (parts == TEST).sum() == 100
    joint = columns[0].fillna("none") + columns[1].astype(str)
    for value in joint.unique():
        inside = (joint == value).to_numpy()
        assert abs((parts[inside] == VAL).sum() - 0.2 * inside.sum()) < 2
        assert abs((parts[inside] == TEST).sum() - 0.1 * inside.sum()) < 2
        assert (parts[inside] == TRAIN).any()


def test_same_seed_same_division():
    first, again, other = (
        assign_random(classes(), 1000, val=0.2, test=0.1, seed=seed) for seed in (3, 3, 4)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_without_columns_totals_are_exact():
    for rows in (1, 2, 7, 33):
        parts = assign_random([], rows, val=0.15, test=0.15, seed=0)
        assert (parts != TRAIN).sum() == np.floor(0.3 * rows + 0.5)


def test_rare_classes_stay_in_training():
    """A class of one or two rows has to be learned; other small combinations are divided."""
    rng = np.random.default_rng(0)
    kind = pd.Series(rng.choice(["a", "b"], 300), name="kind")
    kind[:5] = ["p", "q", "q", "r", "r"]
    for seed in range(20):
        with pytest.warns(UserWarning, match="3 of 5 combinations of classes have fewer than 3"):
            parts = assign_random([kind], 300, val=0.3, test=0.3, seed=seed)
        assert set(kind[parts == TRAIN]) == set(kind)
        assert (parts == VAL).any()


def test_all_combinations_small_still_divides():
    column = pd.Series(np.arange(100) // 2, name="kind")
    with pytest.warns(UserWarning, match="split at random"):
        parts = assign_random([column, column % 3], 100, val=0.2, test=0.2, seed=0)
    assert set(column[parts == TRAIN]) == set(column)


def test_groups_are_never_shared():
    rng = np.random.default_rng(0)
    groups = pd.Series(rng.integers(0, 40, 1000).astype(str), name="patient")
    parts = assign_groups(groups, val=0.2, test=0.1, seed=0)
    assert pd.DataFrame({"g": groups, "p": parts}).groupby("g")["p"].nunique().max() == 1
    for code, share in ((TRAIN, 0.7), (VAL, 0.2), (TEST, 0.1)):
        assert abs((parts == code).mean() - share) < 0.05
    assert not (assign_groups(groups, val=0.2, test=0.0, seed=0) == TEST).any()


def test_bad_groups_are_refused():
    groups = pd.Series(["a", None, "b"], name="patient")
    with pytest.raises(ColumnError, match=r"'patient'.*rows \[1\]"):
        assign_groups(groups, val=0.2, test=0.1, seed=0)
    with pytest.raises(ArgumentError, match="at least 3 values"):
        assign_groups(pd.Series(["a", "b"], name="patient"), val=0.2, test=0.1, seed=0)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (1.0, 0.0), (0.6, 0.4)])
def test_shares_are_checked(val, test):
    with pytest.raises(ArgumentError):
        assign_random([], 10, val=val, test=test, seed=0)
