"""The checkable properties of outlying tasks, on the published scenarios, and of row samples.

Tables are scenarios of `FourierTasks`: 10 tasks of 300 rows, of which the last two are outliers in
scenario 4.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_long import classes, table

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting import ABLATIONS, RMTGBClassifier, RMTGBRegressor
from mtl_tabular.data.fourier_tasks import FourierTasks

ABALONE = Path(__file__).parents[3] / "../shared/data/rmtgb"


def drawn(scenario, seed, rows=300):
    """X, y and task of rows to learn from and of others to score."""
    source = FourierTasks(scenario, seed=seed, waves=100)
    frames = [source.draw(rows, part) for part in ("train", "test")]
    return [(f.iloc[:, :-2].to_numpy(), f["y"].to_numpy(), f["task"].to_numpy()) for f in frames]


def fitted(data, seed=0, **options):
    X, y, task = data
    return RMTGBRegressor(**options, random_state=seed).fit(X, y, task=task)


def rmse(model, data, rows=slice(None)):
    X, y, task = data
    return float(np.sqrt(np.mean((model.predict(X, task) - y)[rows] ** 2)))


# ---------------------------------------------------------------- property 5: outlier tasks


@pytest.mark.parametrize("seed", range(10))
def test_outliers_are_isolated_and_nobody_suffers(seed):
    train, test = drawn(4, seed)
    odd = test[2] >= 8
    model = fitted(
        train, seed, shared_rounds=0, group_rounds=120, task_rounds=20, max_depth=3,
        early_stopping=False,
    )  # fmt: skip
    pooled = fitted(train, seed, **{**ABLATIONS["pooled"], "shared_rounds": 200})
    score = model.outlier_score_.to_numpy()
    assert score[8:].min() > 0.5 > score[:8].max()
    assert rmse(model, test, ~odd) <= rmse(pooled, test, ~odd)
    assert rmse(model, test, odd) <= 0.6 * rmse(pooled, test, odd)


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


@pytest.mark.parametrize("seed", range(3))
def test_identical_tasks_are_nobodys_outliers(seed):
    train, test = drawn(1, seed)
    pooled = fitted(
        train, seed, **{**ABLATIONS["pooled"], "shared_rounds": 200, "early_stopping": False}
    )
    model = fitted(train, seed, shared_rounds=200, group_rounds=100, task_rounds=20)
    assert np.abs(model.model_.shares - 0.5).max() <= 0.06
    assert rmse(model, test) <= 1.02 * rmse(pooled, test)


@pytest.mark.parametrize("seed", range(2))
def test_of_unrelated_tasks_validation_chooses_what_a_single_task_reaches(seed):
    train, test = drawn(2, seed)
    options = {"max_depth": 3, "patience": 5}
    single = fitted(train, seed, **{**ABLATIONS["single"], "task_rounds": 60}, **options)
    rounds = {"shared_rounds": 30, "group_rounds": 30, "task_rounds": 60}
    model = fitted(train, seed, schedule="auto", **rounds, **options)
    assert rmse(model, test) <= 1.08 * rmse(single, test)
    # Not by being unable to do otherwise.
    assert model.held_out_losses_["pooled"] > 2 * model.held_out_losses_.min()


def test_auto_takes_the_best_candidate():
    X, y, task = table(rows=40)
    model = RMTGBRegressor(
        schedule="auto", shared_rounds=15, group_rounds=15, task_rounds=15, random_state=0
    ).fit(X, y, task=task)
    assert len(model.held_out_losses_) == 6
    assert model.chosen_ == model.held_out_losses_.idxmin()
    with pytest.raises(ArgumentError, match="not be auto without held-out rows"):
        RMTGBRegressor(schedule="auto").fit(X[::40], y[::40], task=task[::40])


# ---------------------------------------------------------------- property 9: samples of rows


@pytest.mark.parametrize("seed", range(3))
def test_half_of_the_rows_are_enough(seed):
    train, test = drawn(4, seed)
    rounds = {"shared_rounds": 20, "group_rounds": 60, "task_rounds": 20}
    errors = [
        rmse(fitted(train, seed, subsample=share, early_stopping=False, **rounds), test)
        for share in (1.0, 0.5)
    ]
    assert np.isfinite(errors).all()
    assert errors[1] <= 1.1 * errors[0]


@pytest.mark.skipif(not ABALONE.is_dir(), reason="needs the shared tables")
@pytest.mark.parametrize("seed", range(3))
def test_half_of_the_rows_of_abalone_are_enough(seed):
    rows = pd.read_csv(ABALONE / "abalone_data.csv.gz")
    y = pd.read_csv(ABALONE / "abalone_target.csv.gz").iloc[:, 0].to_numpy(float)
    data = rows.drop(columns="Task").to_numpy(), y, rows["Task"].to_numpy()
    losses = [
        fitted(data, seed, shared_rounds=20, group_rounds=20, task_rounds=20, subsample=share)
        .held_out_losses_.iloc[0]
        for share in (1.0, 0.5)
    ]  # fmt: skip
    assert np.isfinite(losses).all()
    assert losses[1] <= 1.1 * losses[0]
