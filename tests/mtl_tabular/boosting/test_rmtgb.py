"""The checkable properties of the specification, on small tables."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xgboost as xgb
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.tree import DecisionTreeRegressor

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting import ABLATIONS, RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.objectives import initial_theta, sigmoid, softmax

SMALL = {"shared_rounds": 8, "group_rounds": 12, "task_rounds": 6, "random_state": 0}


def table(rows=60, tasks=6, outliers=2, seed=0, noise=0.05):
    """X (n, 3), y (n,), task (n,); the last tasks have the opposite function."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(tasks), rows)
    X = rng.uniform(-1, 1, size=(len(task), 3))
    odd = task >= tasks - outliers
    y = np.where(odd, -1, 1) * (2 * X[:, 0] + X[:, 1] * X[:, 2]) + 0.1 * task
    return X, y + noise * rng.normal(size=len(y)), task


def classes(y, count):
    return np.digitize(y, np.quantile(y, np.linspace(0, 1, count + 1)[1:-1]))


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


# ---------------------------------------------------------------- property 5: outlier tasks


@pytest.mark.parametrize("seed", range(3))
def test_tasks_that_contradict_the_rest_are_isolated(seed):
    X, y, task = table(rows=120, seed=seed)
    new_X, new_y, new_task = table(rows=120, seed=seed + 10)
    options = {"shared_rounds": 0, "task_rounds": 0, "group_rounds": 150, "random_state": seed}
    model = RMTGBRegressor(**options).fit(X, y, task=task)
    score = model.outlier_score_.to_numpy()
    assert score[4:].min() > 0.5 > score[:4].max()
    pooled = RMTGBRegressor(**ABLATIONS["pooled"], random_state=seed).fit(X, y, task=task)
    errors = [
        np.sqrt([np.mean((m.predict(new_X, new_task) - new_y)[rows] ** 2)
                 for rows in (new_task < 4, new_task >= 4)])
        for m in (model, pooled)
    ]  # fmt: skip
    assert errors[0][0] <= errors[1][0]
    assert errors[0][1] <= 0.6 * errors[1][1]


@pytest.mark.parametrize("count", [2, 3])
def test_classes_isolate_outliers_too(count):
    X, y, task = table(rows=120)
    model = RMTGBClassifier(shared_rounds=0, task_rounds=0, group_rounds=60, random_state=0)
    model.fit(X, classes(y, count), task=task)
    score = model.outlier_score_.to_numpy()
    assert score[4:].min() > 0.5 > score[:4].max()
    new_X, new_y, new_task = table(rows=120, seed=5)
    assert model.score(new_X, classes(new_y, count), new_task) > 0.75


def test_three_groups_of_tasks():
    X, _, task = table(rows=100, tasks=6)
    slopes = np.eye(3)[task // 2]  # tasks 0-1, 2-3 and 4-5 look at one feature each
    y = 3 * (X * slopes).sum(1)
    model = RMTGBRegressor(
        n_groups=3, shared_rounds=0, task_rounds=0, group_rounds=150, random_state=1
    ).fit(X, y, task=task)
    leaning = model.model_.shares.argmax(1)
    assert (leaning[::2] == leaning[1::2]).all()
    assert len(set(leaning)) == 3


# ---------------------------------------------------------------- property 6: no false outliers


def test_identical_tasks_are_nobodys_outliers():
    X, y, task = table(rows=100, outliers=0, noise=0.0)
    y = y - 0.1 * task
    new_X, new_y, new_task = table(rows=100, outliers=0, noise=0.0, seed=3)
    new_y = new_y - 0.1 * new_task
    options = {"random_state": 0, "shared_rounds": 300}
    error = [
        np.mean((model.fit(X, y, task=task).predict(new_X, new_task) - new_y) ** 2) ** 0.5
        for model in (RMTGBRegressor(**options),
                      RMTGBRegressor(**{**options, **ABLATIONS["pooled"]}))
    ]  # fmt: skip
    assert error[0] <= 1.02 * error[1]


def test_auto_takes_the_best_candidate():
    X, y, task = table(rows=40)
    model = RMTGBRegressor(
        schedule="auto", shared_rounds=15, group_rounds=15, task_rounds=15, random_state=0
    ).fit(X, y, task=task)
    assert len(model.held_out_losses_) == 6
    assert model.chosen_ == model.held_out_losses_.idxmin()
    with pytest.raises(ArgumentError, match="not be auto without held-out rows"):
        RMTGBRegressor(schedule="auto").fit(X[::40], y[::40], task=task[::40])


# ---------------------------------------------------------------- properties 8, 9: seeds, samples


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


def test_half_of_the_rows_are_enough():
    X, y, task = table(rows=150)
    errors = []
    for subsample in (1.0, 0.5):
        model = RMTGBRegressor(random_state=0, group_rounds=100, subsample=subsample)
        model.fit(X, y, task=task)
        errors.append(model.held_out_losses_.iloc[0])
    assert np.isfinite(errors).all()
    assert errors[1] <= 1.3 * errors[0]


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


# ---------------------------------------------------------------- the estimators' own manners


@pytest.mark.parametrize("schedule", ["sequential", "interleaved"])
def test_stages_end_in_the_prediction(schedule):
    X, y, task = table()
    model = RMTGBRegressor(**SMALL, schedule=schedule, early_stopping=False)
    stages = list(model.fit(X, y, task=task).staged_predict(X, task))
    assert len(stages) == (26 if schedule == "sequential" else 12)
    np.testing.assert_allclose(stages[-1], model.predict(X, task), atol=1e-5)
    errors = [np.mean((stage - y) ** 2) for stage in stages]
    assert errors[-1] < 0.6 * errors[0]


def test_probabilities():
    X, y, task = table()
    for count in (2, 3):
        target = np.array(list("cab"))[classes(y, count)]
        model = RMTGBClassifier(**SMALL).fit(X, target, task=task)
        p = model.predict_proba(X, task)
        np.testing.assert_allclose(p.sum(1), 1)
        assert model.classes_.tolist() == sorted(set(target))
        np.testing.assert_array_equal(model.predict(X, task), model.classes_[p.argmax(1)])
        assert log_loss(target, p) < 0.8 * np.log(count)
        assert model.decision_function(X, task).shape == ((360,) if count == 2 else (360, 3))
        *_, last = model.staged_predict_proba(X, task)
        np.testing.assert_allclose(last, p, atol=1e-5)


def test_missing_features_categories_and_frames():
    X, y, task = table()
    rng = np.random.default_rng(0)
    code = rng.integers(0, 12, len(y))
    y = y + 3 * (code % 2)
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).mask(rng.random(X.shape) < 0.2)
    frame["code"] = code.astype(float)
    options = SMALL | {"shared_rounds": 60, "max_depth": 2}
    plain, native = (
        RMTGBRegressor(**options, categorical_features=chosen).fit(frame, y, task=task)
        for chosen in (None, ["code"])
    )
    assert native.score(frame, y, task) > plain.score(frame, y, task) > 0.5
    assert native.feature_names_in_.tolist() == ["a", "b", "c", "code"]
    np.testing.assert_array_equal(
        native.predict(pl.from_pandas(frame), task), native.predict(frame, task)
    )


def test_weights_are_rows():
    X, y, task = table()
    options = SMALL | {"early_stopping": False, "max_bin": 1024}  # every value has its bin
    twice = np.where(np.arange(len(y)) % 3 == 0, 2, 1)
    twice[:20] = 0
    weighted = RMTGBRegressor(**options).fit(X, y, task=task, sample_weight=twice)
    rows = np.repeat(np.arange(len(y)), twice)
    repeated = RMTGBRegressor(**options).fit(X[rows], y[rows], task=task[rows])
    np.testing.assert_allclose(weighted.predict(X, task), repeated.predict(X, task), atol=1e-4)


def test_balanced_tasks_count_alike():
    X, y, task = table(tasks=2, outliers=1, rows=100)
    rows = np.concatenate([np.arange(100), np.arange(100, 120)])  # 100 against 20 rows
    X, y, task = X[rows], y[rows], task[rows]
    options = {**ABLATIONS["pooled"], "shared_rounds": 30, "early_stopping": False}
    errors = [
        np.mean((RMTGBRegressor(**options, task_balanced=balanced).fit(X, y, task=task)
                 .predict(X, task) - y)[task == 1] ** 2)
        for balanced in (False, True)
    ]  # fmt: skip
    assert errors[1] < errors[0]


def test_early_stopping_keeps_the_best_round_of_every_block():
    X, y, task = table(rows=40, noise=0.3)
    told = []
    model = RMTGBRegressor(random_state=0, patience=5, callbacks=[told.append])
    model.fit(X, y, task=task)
    assert all(a < b for a, b in zip(model.model_.rounds, (200, 400, 100), strict=True))
    assert {t.block for t in told} == {"shared", "groups", "own"}
    shared = [t.held_out for t in told if t.block == "shared"]
    assert int(np.argmin(shared)) + 1 == model.model_.rounds[0]
    assert model.held_out_losses_["sequential"] == pytest.approx(
        min(t.held_out for t in told), rel=1e-4
    )


def test_a_callback_ends_a_block():
    X, y, task = table()
    model = RMTGBRegressor(**SMALL, early_stopping=False, callbacks=[lambda told: told.round >= 3])
    assert model.fit(X, y, task=task).model_.rounds == (3, 3, 3)


def test_validation_rows_of_ones_own():
    X, y, task = table(noise=1.0)
    held = table(seed=9, noise=1.0)
    model = RMTGBRegressor(random_state=0).fit(X, y, task=task, validation=held)
    assert model.task_report_["held_out"].tolist() == [60] * 6
    assert model.task_report_["rows"].tolist() == [60] * 6
    with pytest.raises(ArgumentError, match="the training's tasks only"):
        model.fit(X, y, task=task, validation=(X, y, task + 50))


@pytest.mark.parametrize("schedule", ["sequential", "interleaved"])
def test_a_continued_run_is_one_run(schedule):
    X, y, task = table()
    options = {"group_rounds": 8, "shared_rounds": 8, "task_rounds": 8} | {
        "random_state": 0, "schedule": schedule, "subsample": 0.7, "early_stopping": False
    }  # fmt: skip
    whole = RMTGBRegressor(**options).fit(X, y, task=task)
    first = (
        {"task_rounds": 3}
        if schedule == "sequential"
        else dict.fromkeys(("shared_rounds", "group_rounds", "task_rounds"), 3)
    )
    part = RMTGBRegressor(**options | first, warm_start=True).fit(X, y, task=task)
    part.set_params(**options).fit(X, y, task=task)
    assert part.model_.rounds == (8, 8, 8)
    np.testing.assert_allclose(part.predict(X, task), whole.predict(X, task), atol=1e-5)
    with pytest.raises(ArgumentError, match="of the first training"):
        part.fit(X, y, task=task + 100)


def test_clones_and_bad_targets():
    model = clone(RMTGBClassifier(group_rounds=3))
    X, _, task = table(rows=10)
    with pytest.raises(ArgumentError, match="at least two classes"):
        model.fit(X, np.zeros(60, int), task=task)
    with pytest.raises(ArgumentError, match="sample_weight must be positive"):
        model.fit(X, task % 2, task=task, sample_weight=np.eye(60)[0])
