"""The checkable properties of the specification: what the model is; see also its neighbours.

`test_rmtgb_outliers.py` has the properties of outlying tasks, `test_rmtgb_manners.py` what the
estimators do beside the model.
"""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xgboost as xgb
from sklearn.tree import DecisionTreeRegressor
from toy_long import SMALL, classes, table

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting import ABLATIONS, RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.objectives import initial_theta, sigmoid, softmax

# ---------------------------------------------------------------- property 1: blocks left out


@pytest.mark.parametrize("count", [0, 2, 3])
def test_the_shared_block_alone_is_xgboost(count):
    X, y, task = table()
    settings = {"max_depth": 4, "learning_rate": 0.1, "nthread": 1, "tree_method": "hist"}
    kind, target = RMTGBRegressor, y
    if count:
        kind, target = RMTGBClassifier, classes(y, count)
        settings["objective"] = "binary:logistic" if count == 2 else "multi:softprob"
        settings |= {"num_class": 3} if count == 3 else {}
    model = kind(**ABLATIONS["pooled"], shared_rounds=15, early_stopping=False)
    model.fit(X, target, task=task)
    own_settings = settings | {"base_score": model.model_.intercept.tolist()}
    if count == 2:
        own_settings["base_score"] = target.mean()
    if count == 0:
        own_settings["base_score"] = y.mean()
    if count == 3:
        own_settings["base_score"] = 0.0
    matrix = xgb.QuantileDMatrix(X.astype(np.float32), label=target)
    if count == 3:
        matrix.set_base_margin(np.tile(model.model_.intercept, (len(y), 1)))
    own = xgb.train(own_settings, matrix, 15).predict(matrix)
    found = model.predict(X, task) if count == 0 else model.predict_proba(X, task)
    np.testing.assert_allclose(found[:, 1] if count == 2 else found, own, atol=2e-6)


def test_the_task_blocks_alone_are_xgboost_per_task():
    X, y, task = table()
    model = RMTGBRegressor(**ABLATIONS["single"], task_rounds=10, early_stopping=False)
    found = model.fit(X, y, task=task).predict(X, task)
    settings = {"max_depth": 4, "learning_rate": 0.1, "nthread": 1, "base_score": y.mean()}
    for r in range(6):
        rows = task == r
        matrix = xgb.DMatrix(X[rows].astype(np.float32), label=y[rows])
        own = xgb.train(settings, matrix, 10).predict(matrix)
        np.testing.assert_allclose(found[rows], own, atol=2e-6)


# ---------------------------------------------------------------- property 4: rows and tasks


@pytest.mark.parametrize("schedule", ["sequential", "interleaved"])
def test_a_row_is_predicted_alike_in_any_company(schedule):
    X, y, task = table()
    before = X.copy(), y.copy(), task.copy()
    model = RMTGBRegressor(**SMALL, schedule=schedule).fit(X, y, task=task)
    whole = model.predict(X, task)
    for rows in ([5], np.flatnonzero(task == 4), np.random.default_rng(0).permutation(len(y))):
        np.testing.assert_array_equal(model.predict(X[rows], task[rows]), whole[rows])
    for was, now in zip(before, (X, y, task), strict=True):
        np.testing.assert_array_equal(was, now)
    unknown = model.predict(X[:3], ["new", None, 99])
    np.testing.assert_array_equal(unknown, model.predict(X[:3], [-7, -7, -7]))
    assert np.isfinite(unknown).all()


@pytest.mark.parametrize("place", [0, 2, 3])
def test_the_task_column_may_be_anywhere(place):
    X, y, task = table()
    names = ["task" + str(t) for t in task]
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame.insert(place, "site", names)
    model = RMTGBRegressor(**SMALL, task_column="site").fit(frame, y)
    expected = RMTGBRegressor(**SMALL).fit(X, y, task=names).predict(X, names)
    np.testing.assert_array_equal(model.predict(frame), expected)
    np.testing.assert_array_equal(model.predict(pl.from_pandas(frame)), expected)
    assert list(frame.columns)[place] == "site"
    assert model.outlier_score_.index.tolist() == sorted(set(names))
    with pytest.raises(ArgumentError, match="be None where task_column"):
        model.predict(frame, names)


def test_a_task_is_asked_for():
    X, y, task = table()
    model = RMTGBRegressor(**SMALL).fit(X, y, task=task)
    with pytest.raises(ArgumentError, match="task must name the task of every row"):
        model.predict(X)
    with pytest.raises(ArgumentError, match="for each of the 360 rows"):
        model.predict(X, task[:5])


# ---------------------------------------------------------------- property 8: seeds and threads


@pytest.mark.parametrize("subsample", [1.0, 0.5])
def test_the_seed_decides(subsample):
    X, y, task = table()
    first, again, other = (
        RMTGBRegressor(**SMALL | {"random_state": seed}, subsample=subsample).fit(X, y, task=task)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.predict(X, task), again.predict(X, task))
    np.testing.assert_array_equal(first.model_.theta, again.model_.theta)
    assert not np.array_equal(first.model_.theta, other.model_.theta)


def test_threads_change_little():
    X, y, task = table()
    one, two = (RMTGBRegressor(**SMALL, n_jobs=k).fit(X, y, task=task) for k in (1, 2))
    np.testing.assert_allclose(one.predict(X, task), two.predict(X, task), atol=1e-4)


# ---------------------------------------------------------------- property 11: as published


def published(X, y, task, rounds, nu, seed, count=0):
    """Scores and thetas of the published algorithm, said plainly on exact stumps."""
    T, K = task.max() + 1, max(count, 1)
    theta = initial_theta(T, 2, seed)[:, 0]
    a, b, c, d = np.zeros((4, len(X), K))
    target = np.eye(count)[y] if count else y[:, None]
    X = X.astype(np.float32)

    def score():
        s = sigmoid(theta)[task, None]
        return a + (1 - s) * b + s * c + d

    def step(g, rows=slice(None)):
        tree = DecisionTreeRegressor(max_leaf_nodes=2, random_state=0).fit(X[rows], -g[rows])
        return nu * tree.predict(X[rows]).reshape(-1, K)

    def gradient():
        return (softmax(score()) if count else score()) - target

    for _ in range(rounds[0]):
        a += step(gradient())
    for _ in range(rounds[1]):
        g, s = gradient(), sigmoid(theta)
        slope = np.bincount(task, (g * (c - b)).sum(1), T)
        c += step(s[task, None] * g)
        b += step((1 - s)[task, None] * g)
        theta = theta - nu * s * (1 - s) * slope
    for _ in range(rounds[2]):
        g = gradient()
        for r in range(T):
            d[task == r] += step(g, task == r)
    return score(), theta


@pytest.mark.parametrize("count", [0, 2, 3])
def test_reference_mode_is_the_published_algorithm(count):
    X, y, task = table()
    target = classes(y, count) if count else y
    options = {"shared_rounds": 6, "group_rounds": 12, "task_rounds": 4, "reference_mode": True}
    model = (RMTGBClassifier if count else RMTGBRegressor)(**options, random_state=3)
    model.fit(X, target, task=task)
    scores, theta = published(X, target, task, (6, 12, 4), 0.1, model.seed_, count)
    found = model.model_.theta[:, 0]
    flipped = np.sign(found[0]) != np.sign(theta[0])
    np.testing.assert_allclose(-found if flipped else found, theta, atol=1e-3)
    if count:
        np.testing.assert_allclose(model.predict_proba(X, task), softmax(scores), atol=1e-4)
    else:
        np.testing.assert_allclose(model.predict(X, task), scores[:, 0], atol=1e-4)
