"""Models of every kind leave as arrays, records and answers; their graphs are tested in export."""

import json

import numpy as np
import pandas as pd
import pytest

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting import BoostedTrees, RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.exported import EVERY, boosted, load_boosted
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.tasks import BinaryTarget, NumericTarget


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(5, 3, 200), "city": rng.choice(["a", "b", "c"], 200)})
    table["y"] = 100 + table["x"] * 2 + (table["city"] == "b")
    table["k"] = np.where(table["x"] > 5, "hi", "lo")
    return table


def assembled(tables, X, ids):
    """What the arrays say, in plain numpy."""
    K, G = tables.outputs, tables.shares.shape[1]
    blocks = tables.shared.scores(X, K * (1 + G)).reshape(len(X), 1 + G, K)
    total = (
        tables.base[ids] + blocks[:, 0] + (tables.shares[ids][:, :, None] * blocks[:, 1:]).sum(1)
    )
    for r in np.unique(ids):
        kept = tables.own.tasks == r
        names = ("roots", "rounds", "targets", "tasks")
        one = {**vars(tables.own), **{n: getattr(tables.own, n)[kept] for n in names}}
        total[ids == r] += type(tables.own)(**one).scores(X[ids == r], K)
    logits = total @ tables.mixing.T + tables.offset
    numbers = logits * tables.scale[ids][:, None] + tables.shift[ids][:, None]
    if tables.link == "sigmoid":
        return 1 / (1 + np.exp(-numbers))
    if tables.link == "softmax":
        e = np.exp(numbers - numbers.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)
    return numbers


def test_an_estimator_and_its_unknown_task(tmp_path):
    rng = np.random.default_rng(0)
    X, task = rng.normal(size=(300, 3)).astype(np.float32), rng.integers(0, 3, 300)
    small = {"shared_rounds": 3, "group_rounds": 3, "task_rounds": 2, "random_state": 0}
    ids = np.append(task[:50], -1)
    for model, y in (
        (RMTGBRegressor(**small), X[:, 0] + task),
        (RMTGBClassifier(**small), X[:, 0] > 0),
        (RMTGBClassifier(**small, n_groups=3), np.digitize(X[:, 0], [-0.5, 0.5])),
    ):
        model.fit(X, y, task=task).save(tmp_path / "model.json")
        found = load_boosted(tmp_path / "model.json")
        wanted = found.answer(X[:51].copy(), ids)
        np.testing.assert_allclose(assembled(found.tables[EVERY], X[:51], ids), wanted, atol=1e-5)
        assert list(found.readouts) == ["0", "1", "2"]
        assert [c["name"] for c in found.preprocess["numeric"]] == ["0", "1", "2"]
    assert found.readouts["0"]["classes"] == ["0", "1", "2"]


def test_trees_of_one_kind_share_a_table_and_others_do_not(frame):
    schema = TableSchema.fit(frame[["x", "city"]])
    tasks = {"y": NumericTarget().fit("y", frame["y"]), "k": BinaryTarget().fit("k", frame["k"])}
    mixed = boosted(BoostedTrees(tasks, schema=schema, rounds=3).fit(frame))
    assert list(mixed.tables) == ["y", "k"]
    alone = boosted(BoostedTrees({"y": tasks["y"]}, schema=schema, rounds=3).fit(frame))
    assert list(alone.tables) == [EVERY]
    assert mixed.scores["y"] == ("explained_variance", True)
    assert mixed.preprocess["kind"] == "trees"
    assert np.isnan(alone.tables[EVERY].scale[-1])  # a new task has no prediction


def test_what_is_no_model_is_refused(frame, tmp_path):
    schema = TableSchema.fit(frame[["x", "city"]])
    tasks = {"y": NumericTarget().fit("y", frame["y"]), "z": NumericTarget().fit("y", frame["y"])}
    with pytest.raises(ArgumentError, match="fit must come before export"):
        boosted(BoostedTrees(tasks, schema=schema))
    vector = BoostedTrees(tasks, schema=schema, strategy="joint", rounds=2)
    vector.fit(frame.assign(z=frame["y"]))
    with pytest.raises(ArgumentError, match="joint_trees must be one_output_per_tree"):
        boosted(vector)
    path = tmp_path / "other.json"
    with pytest.raises(ArgumentError, match="be a JSON file of boosted trees"):
        load_boosted(path)
    path.write_text(json.dumps({"format": "other"}))
    with pytest.raises(ArgumentError, match="be of format 'mtl-suite boost 1'"):
        load_boosted(path)
