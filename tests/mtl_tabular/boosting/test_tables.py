"""Trees as arrays give what XGBoost and the forests give."""

import numpy as np
import pytest
import xgboost as xgb

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting import RMTGBRegressor
from mtl_tabular.boosting.blocks import FeatureRows
from mtl_tabular.boosting.tables import (
    TreeTable,
    base_margins,
    block_table,
    booster_table,
    own_table,
)


def rows(n=300, seed=0):
    """Codes in the first column, holes everywhere."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    X[:, 0] = rng.integers(0, 6, n)
    X[rng.random(X.shape) < 0.1] = np.nan
    f = 2 * np.nan_to_num(X[:, 1]) + np.isin(X[:, 0], [1, 4])
    return X, f, rng.integers(0, 3, n)


def matrix(X, label=None, kinds=("c", "q", "q")):
    return xgb.DMatrix(X, label=label, feature_types=list(kinds), enable_categorical=True)


@pytest.mark.parametrize(
    ("objective", "kinds", "label"),
    [
        ({"objective": "reg:squarederror"}, ("c", "q", "q"), lambda f: f),
        ({"objective": "binary:logistic"}, ("c", "q", "q"), lambda f: f > 0.5),
        (
            {"objective": "multi:softprob", "num_class": 3},
            ("c", "q", "q"),
            lambda f: np.digitize(f, [0, 1]),
        ),
        (
            {"multi_strategy": "multi_output_tree"},
            ("q", "q", "q"),
            lambda f: np.stack([f, f**2], 1),
        ),
    ],
)
def test_sums_of_leaves_and_base_are_the_margins_of_xgboost(objective, kinds, label):
    X, f, _ = rows()
    parameters = {"max_depth": 3, "tree_method": "hist", **objective}
    booster = xgb.train(parameters, matrix(X, label(f), kinds), 5)
    new = rows(seed=1)[0]
    new[:8, 0] = [6, 7, 99, -1, 5, 0, np.nan, 2]  # codes that training did not have, too
    if kinds[0] == "q":
        new[3, 0] = 0
    margins = booster.predict(matrix(new, kinds=kinds), output_margin=True).reshape(len(new), -1)
    K = margins.shape[1]
    found = booster_table(booster, first_target=2)
    assert set(found.targets) == set(range(2, 2 + K))
    assert found.rounds.max() == 4
    base = base_margins(booster, objective.get("objective", "reg:squarederror"))
    np.testing.assert_allclose(found.scores(new, 2 + K)[:, 2:] + base, margins, atol=1e-5)


@pytest.mark.parametrize("categorical", [None, [0]])
def test_blocks_of_an_estimator(categorical):
    """Of a forest, whose trees grow together, and of a booster a task."""
    X, f, task = rows()
    model = RMTGBRegressor(
        shared_rounds=3, group_rounds=2, task_rounds=3, random_state=0,
        categorical_features=categorical,
    ).fit(X, f, task=task).model_  # fmt: skip
    new = rows(seed=1)[0]
    kinds = ("c" if categorical else "q", "q", "q")
    asked = FeatureRows(new, kinds)
    for block in (model.shared, *model.groups):
        wanted = block.part(asked.matrix, 0, block.rounds)
        np.testing.assert_allclose(block_table(block, 0).scores(new, 1), wanted, atol=1e-5)
    own = own_table(model.own)
    assert set(own.tasks) == {0, 1, 2}
    for r in range(3):
        wanted = model.own.part(asked, np.full(len(new), r), 0, model.own.rounds)
        kept = np.flatnonzero(own.tasks == r)
        names = ("roots", "rounds", "targets", "tasks")
        one = TreeTable(**{**vars(own), **{name: getattr(own, name)[kept] for name in names}})
        np.testing.assert_allclose(one.scores(new, 1), wanted, atol=1e-5)


def test_nothing_is_an_empty_table():
    empty = booster_table(None)
    assert len(empty.roots) == len(empty.left) == 0
    assert empty.scores(rows()[0], 2).tolist() == [[0, 0]] * 300


def test_other_boosters_are_refused():
    X, f, _ = rows()
    booster = xgb.train({"booster": "dart", "tree_method": "hist"}, matrix(X, f), 2)
    with pytest.raises(ArgumentError, match=r"booster must hold plain trees \(gbtree\).*dart"):
        booster_table(booster)
