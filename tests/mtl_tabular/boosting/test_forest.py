"""Trees of all tasks together are XGBoost's, task by task, and tasks do not see each other."""

import json

import numpy as np
import pytest
import xgboost as xgb

from mtl_tabular.boosting import RMTGBRegressor, chunks
from mtl_tabular.boosting.blocks import FeatureRows, RowSet
from mtl_tabular.boosting.boosters import TaskBoosters
from mtl_tabular.boosting.forest import TaskForest
from mtl_tabular.boosting.histograms import BinnedRows

T = 6
CASES = [("numbers", 0.0, False), ("numbers", 0.3, True), ("levels", 0.3, False)]
SETTINGS = {
    "plain": {},
    "stumps": {"max_depth": 1},
    "deep": {"max_depth": 6, "min_child_weight": 0.0},
    "stiff": {"reg_lambda": 20.0, "min_child_weight": 5.0},
    "sparse": {"reg_alpha": 2.0, "gamma": 1.0},
    "free": {"reg_lambda": 0.0, "min_child_weight": 3.0},
}


def table(kind="numbers", holes=0.0, seed=0, sizes=(40, 120, 15, 200, 60, 90)):
    """Features (n, 4), targets (n,), tasks (n,); the last feature never varies."""
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    X = rng.normal(size=(len(tasks), 4)).astype(np.float32)
    if kind == "levels":
        X = np.round(2 * X)
    X[:, 3] = 1.0
    y = X[:, 0] * X[:, 1] + np.where(tasks % 2, 1, -1) * X[:, 2] + rng.normal(size=len(tasks))
    X[:, :3][rng.random((len(tasks), 3)) < holes] = np.nan
    return X, y, tasks


def rows(X, y, tasks, max_bin=256):
    return RowSet(X, y, np.ones(len(y)), tasks, T, ("q",) * X.shape[1], max_bin)


def parameters(**given):
    made = {"max_depth": 4, "learning_rate": 0.3, "tree_method": "hist", "nthread": 1, "seed": 3}
    return made | given


def grown(train, rounds, forest=None, outputs=1, weights=None, least=1, **given):
    """Rounds on squared loss, and the scores that training adds up."""
    forest = forest or TaskForest([parameters(**given)] * T, outputs=outputs)
    scores = forest.training_scores(train)
    hessian = np.ones((len(train), outputs)) if weights is None else weights[:, None]
    for _ in range(rounds):
        goals = train.targets[:, None] * (1 + np.arange(outputs))
        forest.grow(train, hessian * (scores - goals), hessian, least=least, scores=scores)
    return forest, scores


def by_xgboost(X, y, weights, rounds, **given):
    matrix = xgb.DMatrix(X)
    booster = xgb.Booster(parameters(**given) | {"base_score": 0.0}, [matrix])
    for k in range(rounds):
        gradient = weights * (booster.predict(matrix) - y)
        booster.boost(
            matrix, iteration=k, grad=gradient.astype(np.float32), hess=weights.astype(np.float32)
        )
    return booster


@pytest.fixture(params=["sorted", "counted"])
def layout(request, monkeypatch):
    """Both ways to find splits, whichever would be the cheaper one."""
    made = {"sorted": lambda columns, depth: columns,
            "counted": lambda columns, depth: BinnedRows.of(columns)}  # fmt: skip
    monkeypatch.setattr(chunks, "_laid_out", made[request.param])


@pytest.mark.parametrize(("kind", "holes", "weighted"), CASES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_trees_are_xgboosts(layout, setting, kind, holes, weighted):
    """On training rows and on others, with and without missing values in them."""
    X, y, tasks = table(kind, holes)
    weights = np.random.default_rng(1).uniform(0.2, 2, len(y)) if weighted else np.ones(len(y))
    forest, scores = grown(
        rows(X, y, tasks), 4, weights=weights if weighted else None, **SETTINGS[setting]
    )
    others, _, other_tasks = table(kind, 0.2, seed=5)
    found = forest.part(FeatureRows(others, ("q",) * 4), other_tasks, 0, 4)
    for r in range(0, T, 2):
        own = tasks == r
        booster = by_xgboost(X[own], y[own], weights[own], 4, **SETTINGS[setting])
        np.testing.assert_allclose(scores[own, 0], booster.predict(xgb.DMatrix(X[own])), atol=1e-5)
        other = other_tasks == r
        # XGBoost's last bin ends a little above the task's largest value, ours nowhere.
        low, high = np.nanmin(X[own], 0), np.nanmax(X[own], 0)
        inside = (~(others[other] < low) & ~(others[other] > high)).all(1)
        expected = booster.predict(xgb.DMatrix(others[other][inside]))
        np.testing.assert_allclose(found[other, 0][inside], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["numbers", "levels"])
def test_a_task_does_not_see_the_others(layout, kind):
    """Not by a bit, though the others' numbers are far larger; nor who else is there."""
    X, y, tasks = table(kind, 0.1)
    _, scores = grown(rows(X, y, tasks), 4, subsample=0.7, colsample_bytree=0.7)
    changed_X, changed_y = X.copy(), y.copy()
    other = tasks != 3
    changed_X[other], changed_y[other] = 5 * X[other] + 1, 1e4 * y[other] + 7
    _, changed = grown(rows(changed_X, changed_y, tasks), 4, subsample=0.7, colsample_bytree=0.7)
    np.testing.assert_array_equal(changed[~other], scores[~other])
    assert not np.array_equal(changed[other], scores[other])
    _, alone = grown(rows(X[~other], y[~other], tasks[~other]), 4, subsample=0.7,
                     colsample_bytree=0.7)  # fmt: skip
    np.testing.assert_array_equal(alone, scores[~other])


@pytest.mark.parametrize("kind", ["numbers", "levels"])
def test_the_order_of_rows_does_not_matter(layout, kind):
    X, y, tasks = table(kind, 0.1)
    rng = np.random.default_rng(0)
    order = np.lexsort((rng.random(len(y)), tasks))
    weights = rng.uniform(0.5, 1, len(y))
    _, scores = grown(rows(X, y, tasks), 5, weights=weights)
    _, mixed = grown(rows(X[order], y[order], tasks), 5, weights=weights[order])
    np.testing.assert_array_equal(mixed, scores[order])


@pytest.mark.parametrize("kind", ["numbers", "levels"])
def test_weights_are_rows(layout, kind):
    X, y, tasks = table(kind, 0.1)
    times = np.random.default_rng(0).integers(1, 4, len(y))
    again = np.repeat(np.arange(len(y)), times)
    _, weighted = grown(rows(X, y, tasks), 5, weights=times.astype(float))
    _, repeated = grown(rows(X[again], y[again], tasks[again]), 5)
    np.testing.assert_allclose(weighted[again], repeated, atol=1e-5)


def test_rising_maps_of_a_feature_change_nothing():
    X, y, tasks = table(holes=0.1)
    mapped = X.copy()
    mapped[:, 0], mapped[:, 1] = np.exp(X[:, 0]), 1000 * X[:, 1] - 4
    _, scores = grown(rows(X, y, tasks), 5)
    np.testing.assert_array_equal(grown(rows(mapped, y, tasks), 5)[1], scores)


def test_missing_values_go_where_they_belong():
    X, y, tasks = table()
    gone = np.random.default_rng(0).random(len(y)) < 0.3
    for sign in (-1, 1):
        y = np.where(gone, sign * 10.0, X[:, 0])
        holed = X.copy()
        holed[gone, 0] = np.nan
        forest, _ = grown(rows(holed, y, tasks), 20)
        asked = FeatureRows(np.array([[np.nan, 0, 0, 1]] * T, np.float32), ("q",) * 4)
        found = forest.part(asked, np.arange(T), 0, 20)
        np.testing.assert_allclose(found[:, 0], sign * 10, atol=2)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_continued_run_is_one_run(outputs):
    """Bit by bit, through plain JSON, with samples of rows and columns."""
    X, y, tasks = table(holes=0.1)
    given = {"subsample": 0.6, "colsample_bytree": 0.5, "outputs": outputs}
    train = rows(X, y, tasks)
    whole, scores = grown(train, 7, **given)
    part, _ = grown(train, 5, **given)
    part.keep(3)
    saved = json.loads(json.dumps(part.state()))
    again = TaskForest(
        [parameters(subsample=0.6, colsample_bytree=0.5)] * T, outputs=outputs
    ).restore(saved)
    continued, same = grown(train, 4, again, outputs=outputs)
    np.testing.assert_array_equal(same, scores)
    np.testing.assert_array_equal(whole.training_scores(train), scores)
    assert continued.rounds == 7
    assert continued.state() == whole.state()


def test_parts_add_up_and_rows_do_not_see_each_other():
    X, y, tasks = table(holes=0.1)
    train = rows(X, y, tasks)
    forest, scores = grown(train, 6)
    parts = forest.part(train, tasks, 0, 2) + forest.part(train, tasks, 2, 9)
    np.testing.assert_allclose(parts, scores, atol=1e-5)
    for some in (np.array([17]), np.arange(len(y))[::-3]):
        part = forest.part(FeatureRows(X[some], ("q",) * 4), tasks[some], 0, 6)
        np.testing.assert_array_equal(part, scores[some])
    assert not forest.part(train, np.full(len(y), -1), 0, 6).any()
    assert not forest.part(train, tasks, 6, 9).any()


def test_small_tasks_and_samples():
    X, y, tasks = table()
    train = rows(X, y, tasks)
    forest, scores = grown(train, 2, least=50)
    counts = np.bincount(tasks)
    np.testing.assert_array_equal(scores[:, 0] != 0, (counts >= 50)[tasks])
    gains = forest.gains(4)
    assert gains.shape == (4, T)
    np.testing.assert_array_equal(gains.sum(0) > 0, counts >= 50)
    assert not gains[3].any()
    single, _ = grown(train, 1, colsample_bytree=0.25)
    assert ((single.gains(4) > 0).sum(0) <= 1).all()


def test_rates_of_tasks():
    X, y, tasks = table()
    train = rows(X, y, tasks)
    forest = TaskForest([parameters(learning_rate=0.1 * (r + 1)) for r in range(T)])
    scores = forest.training_scores(train)
    forest.grow(train, -y[:, None], np.ones((len(y), 1)), least=1, scores=scores)
    _, same = grown(train, 1, learning_rate=1.0)
    np.testing.assert_allclose(scores, 0.1 * (tasks + 1)[:, None] * same, rtol=1e-5)


def test_many_rows_have_few_bins():
    """More distinct values than bins are cut at quantiles, for a loss hardly higher."""
    sizes = (3000, 400, 30, 20, 10, 5000)
    X, y, tasks = table(sizes=sizes)
    losses = [
        float(np.mean((grown(rows(X, y, tasks, bins), 8)[1][:, 0] - y) ** 2))
        for bins in (32, 100_000)
    ]
    assert losses[0] <= 1.05 * losses[1]
    forest, _ = grown(rows(X, y, tasks, 4), 3)
    tree = forest.trees[0][0]
    first = np.unique(tree.threshold[(tree.left >= 0) & (tree.feature == 0) & (tree.tasks() == 5)])
    assert len(first) <= 3


def test_what_a_forest_understands():
    assert TaskForest.supports(parameters(subsample=0.5, device="cpu", max_bin=64))
    assert not TaskForest.supports(parameters(tree_method="exact"))
    assert not TaskForest.supports(parameters(multi_strategy="multi_output_tree"))


@pytest.mark.parametrize(
    ("options", "kind"),
    [({}, TaskForest), ({"task_feature": "categorical"}, TaskForest),
     ({"categorical_features": [3]}, TaskBoosters), ({"reference_mode": True}, TaskBoosters)],
)  # fmt: skip
def test_who_has_a_forest(options, kind):
    X, y, tasks = table()
    model = RMTGBRegressor(shared_rounds=0, group_rounds=0, task_rounds=2, **options)
    assert isinstance(model.fit(X, y, task=tasks).model_.own, kind)


def test_large_tasks_have_boosters():
    X, y, tasks = table(sizes=(3000, 400))
    model = RMTGBRegressor(shared_rounds=0, group_rounds=0, task_rounds=2)
    assert isinstance(model.fit(X, y, task=tasks).model_.own, TaskBoosters)
