"""Properties: equal to XGBoost used by hand, missing labels leave a task alone, Δm applies.

Also `mtl_tabular.boosting.joint`, by the strategy of that name.
"""

import numpy as np
import pandas as pd
import pytest
import torch
import xgboost as xgb

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.metrics import delta_m
from mtl_tabular.boosting import BoostedTrees
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

FEATURES = ["x", "z", "c"]


def wide(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, rows))
    c = rng.integers(0, 4, rows)
    frame = pd.DataFrame({"x": x, "z": np.where(rng.random(rows) < 0.1, np.nan, z)})
    frame["c"] = pd.Series(list("abcd"))[c].to_numpy()
    frame["size"] = 100 + 20 * (x + np.isin(c, [0, 3])) + rng.normal(size=rows)
    frame["cost"] = -3 * x * z + rng.normal(size=rows)
    frame["sold"] = np.where(x + z + rng.normal(size=rows) > 0, "yes", "no")
    frame["kind"] = np.digitize(x, [-0.5, 0.5])
    return frame


def fitted(frame: pd.DataFrame, **kinds):
    kinds = kinds or {
        "size": NumericTarget(),
        "cost": NumericTarget(),
        "sold": BinaryTarget(),
        "kind": MulticlassTarget(),
    }
    return {name: task.fit(name, frame[name]) for name, task in kinds.items()}


def model(frame: pd.DataFrame, tasks=None, **options) -> BoostedTrees:
    options = {"rounds": 20, "depth": 3} | options
    return BoostedTrees(tasks or fitted(frame), schema=TableSchema.fit(frame[FEATURES]), **options)


def long(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Two sites whose slopes differ in sign."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "site": rng.integers(0, 2, rows)})
    frame["y"] = 10 + np.where(frame.site == 0, 2, -2) * frame.x + 0.1 * rng.normal(size=rows)
    return frame


def long_tasks(frame: pd.DataFrame):
    return {
        f"y_{s}": NumericTarget(column="y", level=str(s)).fit(f"y_{s}", frame.y[frame.site == s])
        for s in (0, 1)
    }


def long_model(frame: pd.DataFrame, strategy: str, **options) -> BoostedTrees:
    return BoostedTrees(
        long_tasks(frame), schema=TableSchema.fit(frame[["x"]]), strategy=strategy,
        task_column="site", rounds=40, depth=3, **options,
    )  # fmt: skip


def test_single_is_xgboost_per_task():
    frame = wide()
    trees = model(frame).fit(frame)
    numbers = frame[["x", "z"]].to_numpy()
    codes = frame.c.map({level: i for i, level in enumerate("abcd")}).to_numpy()
    matrix = xgb.DMatrix(
        np.column_stack([codes, numbers]),
        label=(frame.sold == "yes").astype(float),
        feature_types=["c", "q", "q"],
        enable_categorical=True,
    )
    settings = {"max_depth": 3, "eta": 0.1, "objective": "binary:logistic", "nthread": 1}
    own = xgb.train(settings, matrix, 20).predict(matrix, output_margin=True)
    raw = trees.predict_raw(frame)
    np.testing.assert_allclose(raw["sold"][:, 0], own, atol=1e-5)
    assert {name: tuple(r.shape) for name, r in raw.items()} == {
        "size": (300, 1), "cost": (300, 1), "sold": (300, 1), "kind": (300, 3)
    }  # fmt: skip


def test_scores_have_the_tasks_names_and_delta_m_applies():
    train, test = wide(), wide(seed=1)
    trees = model(train).fit(train)
    scores = trees.evaluate(test)
    assert {name: set(s) for name, s in scores.items()} == {
        name: set(task.metrics()) for name, task in trees.tasks.items()
    }
    residual = trees.predict(test)["size"] - test["size"]
    assert scores["size"]["rmse"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-4)
    assert scores["size"]["rmse"] < 8 < test["size"].std()
    accuracy = (trees.predict(test)["sold"] == test.sold).mean()
    assert scores["sold"]["accuracy"] == pytest.approx(accuracy)
    directions = {name: task.higher_is_better() for name, task in trees.tasks.items()}
    assert delta_m(scores, scores, directions) == 0
    worse = model(train, rounds=1).fit(train).evaluate(test)
    assert delta_m(worse, scores, directions) < 0


def test_rows_without_a_label_leave_only_their_task_alone():
    frame = wide()
    frame.loc[::2, "size"] = np.nan
    kept = frame[1::2]
    tasks = fitted(frame)
    whole, part = model(frame, tasks).fit(frame), model(frame, tasks).fit(kept)
    torch.testing.assert_close(whole.predict_raw(frame)["size"], part.predict_raw(frame)["size"])
    assert not torch.equal(whole.predict_raw(frame)["cost"], part.predict_raw(frame)["cost"])


@pytest.mark.parametrize("trees", ["multi_output_tree", "one_output_per_tree"])
def test_joint_with_missing_labels(trees):
    frame, test = wide(), wide(seed=1)
    tasks = fitted(frame, size=NumericTarget(), cost=NumericTarget())
    options = {"strategy": "joint", "joint_trees": trees, "rounds": 60}
    full = model(frame, tasks, **options).fit(frame, test)
    assert full.evaluate(test)["size"]["rmse"] < 5
    holes = frame.copy()
    holes.loc[::3, "size"] = np.nan
    joint = model(frame, tasks, **options).fit(holes, test)
    assert joint.evaluate(test)["size"]["rmse"] < 6
    filled = holes.assign(size=holes["size"].fillna(1e6))  # what a NaN taken as a value would do
    assert model(frame, tasks, **options).fit(filled).evaluate(test)["size"]["rmse"] > 100


def test_one_output_per_tree_equals_single_models_where_all_labels_are_there():
    frame = wide()
    tasks = fitted(frame, size=NumericTarget(), cost=NumericTarget())
    joint = model(frame, tasks, strategy="joint", joint_trees="one_output_per_tree").fit(frame)
    single = model(frame, tasks).fit(frame)
    for name, raw in joint.predict_raw(frame).items():
        torch.testing.assert_close(raw, single.predict_raw(frame)[name], atol=1e-4, rtol=1e-4)


def test_early_stopping_keeps_the_best_round_of_every_task():
    train, val = wide(), wide(seed=1)
    trees = model(train, rounds=200, patience=5, learning_rate=0.3).fit(train, val)
    rounds = {name: booster.num_boosted_rounds() for name, booster in trees.boosters.items()}
    assert max(rounds.values()) < 200
    assert len(set(rounds.values())) > 1
    full = model(train, rounds=200, learning_rate=0.3).fit(train)
    scores, over = trees.evaluate(val), full.evaluate(val)
    assert scores["sold"]["log_loss"] < over["sold"]["log_loss"]
    assert trees.nodes < full.nodes


def test_a_task_without_validation_labels_warns():
    train = wide()
    val = wide(seed=1).assign(size=np.nan)
    with pytest.warns(UserWarning, match="no validation row is labelled for size"):
        trees = model(train).fit(train, val)
    assert trees.boosters["size"].num_boosted_rounds() == 20


@pytest.mark.parametrize("encoding", ["categorical", "one-hot"])
def test_the_task_as_a_feature_tells_opposite_tasks_apart(encoding):
    train, test = long(), long(seed=1)
    pooled = long_model(train, "pooled").fit(train).evaluate(test)
    feature = long_model(train, "feature", task_encoding=encoding).fit(train).evaluate(test)
    for task in pooled:
        assert pooled[task]["rmse"] > 1.5
        assert feature[task]["rmse"] < 0.7


def test_pooling_does_not_know_the_task():
    train = long()
    trees = long_model(train, "pooled").fit(train, long(seed=1))
    first, second = trees.predict(train).values()
    np.testing.assert_allclose(first, second, rtol=1e-5)
    matrix = xgb.DMatrix(train[["x"]], label=train.y)
    settings = {"max_depth": 3, "eta": 0.1, "nthread": 1}
    rounds = trees.boosters["all"].num_boosted_rounds()
    own = xgb.train(settings, matrix, rounds).predict(matrix)
    np.testing.assert_allclose(first, own, atol=1e-2)


def test_a_task_with_one_class_only_is_predicted():
    train = wide().assign(sold="no")
    tasks = {"sold": BinaryTarget(classes=("no", "yes")).fit("sold", train.sold)}
    trees = model(train, tasks).fit(train)
    assert set(trees.predict(train)["sold"]) == {"no"}


def test_same_seed_same_model():
    frame = wide()
    first, second = (
        model(frame, subsample=0.5, colsample=0.7).fit(frame).predict_raw(frame) for _ in range(2)
    )
    other = model(frame, subsample=0.5, colsample=0.7, seed=1).fit(frame).predict_raw(frame)
    assert torch.equal(first["size"], second["size"])
    assert not torch.equal(first["size"], other["size"])


def test_bad_arguments_say_why():
    frame = wide()
    with pytest.raises(ArgumentError, match=r"numeric tasks of loss mse only.*sold"):
        model(frame, strategy="joint")
    with pytest.raises(ArgumentError, match="task_column must name the column"):
        model(frame, strategy="pooled")
    with pytest.raises(ArgumentError, match="be fitted on the training rows"):
        model(frame, {"size": NumericTarget()})
    with pytest.raises(ArgumentError, match="rounds must be at least 1"):
        model(frame, rounds=0)
    with pytest.raises(ArgumentError, match="strategy must be one of single"):
        model(frame, strategy="all")
    with pytest.raises(LabelError, match="at least one training row"):
        model(frame).fit(frame.assign(size=np.nan))
    with pytest.raises(ArgumentError, match="fit must come before predictions"):
        model(frame).predict(frame)
    tasks = long_tasks(long())
    tasks["b"] = BinaryTarget(column="y", level="2", classes=("0", "1"), rows=1)
    with pytest.raises(ArgumentError, match="of one kind"):
        BoostedTrees(
            tasks, schema=TableSchema.fit(long()[["x"]]), strategy="pooled", task_column="site"
        )


def test_callbacks_are_told_of_every_round_and_may_stop():
    frame, told = wide(), []
    model(frame, callbacks=[told.append]).fit(frame)
    assert [t.round for t in told] == list(range(1, 4 * 20 + 1))  # of four models
    assert {(t.block, t.rounds) for t in told} == {("single", 80)}
    stopped = model(frame, callbacks=[lambda t: t.round % 20 == 3]).fit(frame)
    assert {b.num_boosted_rounds() for b in stopped.boosters.values()} == {3}


@pytest.mark.parametrize("strategy", ["pooled", "feature"])
def test_a_loaded_model_is_the_saved_one(tmp_path, strategy):
    frame = long()
    trees = long_model(frame, strategy, task_encoding="one-hot").fit(frame)
    trees.save(tmp_path / "trees.json")
    again = BoostedTrees.load(tmp_path / "trees.json")
    assert again.evaluate(frame) == trees.evaluate(frame)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ArgumentError, match="name a file of format"):
        BoostedTrees.load(tmp_path / "other.json")


def test_an_untrained_model_is_not_saved(tmp_path):
    with pytest.raises(ArgumentError, match="come before save"):
        model(wide()).save(tmp_path / "trees.json")
    assert not list(tmp_path.iterdir())
