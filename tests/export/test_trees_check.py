"""Graphs of trees send every row to the leaf that the arrays say, wherever it lies."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import xgboost as xgb

from export.trees import tree_graph
from export.trees_build import drawn_rows
from export.trees_check import leaf_mismatches, leaves, walk
from mtl_tabular.boosting import RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.exported import boosted
from mtl_tabular.boosting.tables import TreeTable

T, SMALL = 5, {"shared_rounds": 6, "group_rounds": 5, "task_rounds": 4, "random_state": 0}


def run(graph, features, ids):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(graph.SerializeToString(), options)
    return session.run(None, {"features": features, "task": ids})[0]


def sample(n=400, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    x[:, 0], x[:, 3] = rng.integers(0, 6, n), 2.0
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 3] = 2.0
    task = rng.integers(0, T, n)
    y = np.nan_to_num(x[:, 1]) * np.where(task == 4, -1, 1) + np.isin(x[:, 0], [1, 4])
    return x, task, y


@pytest.fixture(scope="module")
def models():
    x, task, y = sample()
    three = np.digitize(y, [-0.3, 0.8])
    made = {
        "numbers": RMTGBRegressor(**SMALL).fit(x, y, task=task),
        "three groups": RMTGBClassifier(**SMALL, n_groups=3).fit(x, y > 0, task=task),
        "classes and categories": RMTGBClassifier(**SMALL, categorical_features=[0]).fit(
            x, three, task=task
        ),
        "task as feature": RMTGBRegressor(**SMALL, task_feature="categorical").fit(x, y, task=task),
    }
    return {name: boosted(model) for name, model in made.items()}


NAMES = ["numbers", "three groups", "classes and categories", "task as feature"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_at_random_and_on_thresholds_reach_the_same_leaves(models, name):
    tables = models[name].tables["*"]
    rows, ids = drawn_rows(tables, 2500, seed=1)
    assert leaf_mismatches(tables, rows, ids, run) == 0
    assert leaf_mismatches(tables, rows, ids, run, ml=5) == 0


def test_another_comparison_sends_rows_elsewhere(models):
    tables = models["numbers"].tables["*"]
    rows, ids = drawn_rows(tables, 500, seed=1)
    assert leaf_mismatches(tables, rows, ids, run, less="BRANCH_LEQ") > 50


def test_missing_values_that_go_the_other_way_are_seen(models):
    tables = models["numbers"].tables["*"]
    turned = replace(tables.shared, missing_left=~tables.shared.missing_left)
    rows, ids = drawn_rows(tables, 500, seed=1)
    wrong = replace(tables, shared=turned)
    marked = walk(tables, rows, np.where(ids < 0, T, ids))
    assert (walk(wrong, rows, np.where(ids < 0, T, ids)) != marked).any()


def test_leaves_are_those_that_xgboost_names():
    x, task, y = sample()
    model = RMTGBRegressor(**SMALL, categorical_features=[0]).fit(x, y, task=task)
    tables = boosted(model).tables["*"]
    rows, _ = drawn_rows(tables, 800, seed=2)
    matrix = xgb.DMatrix(rows, feature_types=["c", "q", "q", "q"], enable_categorical=True)
    named = model.model_.shared.booster.predict(matrix, pred_leaf=True)
    trees = tables.shared
    own = [int(root) for root, target in zip(trees.roots, trees.targets, strict=True) if not target]
    assert len(own) == named.shape[1]
    for column, root in enumerate(own):
        assert (leaves(trees, root, rows) - root == named[:, column]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_one_answer_in_any_order_and_company(models, name):
    tables = models[name].tables["*"]
    graph = tree_graph(tables)
    rows, ids = drawn_rows(tables, 60, seed=3)
    whole, order = run(graph, rows, ids), np.random.default_rng(0).permutation(60)
    assert (run(graph, rows[order], ids[order]) == whole[order]).all()
    alone = np.concatenate([run(graph, rows[[i]], ids[[i]]) for i in range(10)])
    assert (alone == whole[:10]).all()
    assert run(graph, rows[:0], ids[:0]).shape == (0, whole.shape[1])


@pytest.mark.parametrize("name", NAMES)
def test_any_id_but_those_of_tasks_is_an_unknown_task(models, name):
    tables = models[name].tables["*"]
    rows, _ = drawn_rows(tables, 40, seed=4)
    graph = tree_graph(tables)
    unknown = run(graph, rows, np.full(40, -1))
    for other in (T, T + 1, 10**9, -2, -(10**9)):
        assert (run(graph, rows, np.full(40, other)) == unknown).all()
    assert np.abs(models[name].answer(rows, np.full(40, -1)) - unknown).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_any_value_have_the_answer_of_the_model(models, name):
    rows, ids = np.full((T + 1, 4), np.nan, np.float32), np.arange(-1, T)
    found = run(tree_graph(models[name].tables["*"]), rows, ids)
    assert np.abs(models[name].answer(rows, ids) - found).max() < 1e-5


@pytest.mark.parametrize("rounds", ["none", "constant"])
def test_trees_of_one_leaf_and_no_trees_at_all(rounds):
    x, task, y = sample(120)
    plan = {**SMALL, "early_stopping": False}
    if rounds == "none":
        plan |= {"shared_rounds": 0, "group_rounds": 0, "task_rounds": 1, "min_task_rows": 10**6}
    else:
        x = np.ones_like(x)
    model = boosted(RMTGBRegressor(**plan).fit(x, y, task=task))
    tables = model.tables["*"]
    if rounds == "constant":
        assert (tables.shared.left < 0).all()
    else:
        tables = replace(tables, own=TreeTable.empty())
    ids = np.resize(np.arange(-1, T), 12)
    for ml in (3, 5):
        found = run(tree_graph(tables, ml=ml), x[:12], ids)
        assert np.abs(model.answer(x[:12], ids) - found).max() < 1e-5
