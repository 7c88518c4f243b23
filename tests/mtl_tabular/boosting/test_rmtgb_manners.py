"""What the R-MTGB estimators do beside the model: stages, weights, early stopping, warm start."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss
from toy_long import SMALL, classes, table

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting import ABLATIONS, RMTGBClassifier, RMTGBRegressor


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
