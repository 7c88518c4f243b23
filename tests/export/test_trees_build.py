"""Folders of boosted trees: what they hold, and that they answer as the model does."""

import json

import numpy as np
import pandas as pd
import pytest

from export import tree_nodes, trees, trees_build
from export.build import ParityError
from export.check import check
from export.manifest import FolderError
from export.runtime import Predictor
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.boosting.model_file import build, write_model
from mtl_tabular.data.table import TableDataModule
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget

SMALL = {"shared_rounds": 4, "group_rounds": 4, "task_rounds": 3}
REGRESSOR = {"class_path": "RMTGBRegressor", "init_args": SMALL}
CLASSIFIER = {"class_path": "RMTGBClassifier", "init_args": SMALL}


def trees_of(**arguments):
    return {"class_path": "BoostedTrees", "init_args": {"rounds": 4, **arguments}}


NUMBERS = {
    "prediction": NumericTarget(column="u"),  # which is what outputs are called otherwise
    "v": NumericTarget(column="v"),
}
MIXED = {
    "u": NumericTarget(column="u"),
    "k": MulticlassTarget(column="k"),
    "w": BinaryTarget(column="w"),
}
WIDE, SITES = {"ignore": ["site"]}, {"task_column": "site"}
CASES = {
    "wide": (NUMBERS, WIDE | {"ignore": ["site", "k", "w"]}, REGRESSOR),
    "long": (
        {"k": MulticlassTarget(column="k")},
        SITES | {"ignore": ["u", "v", "w"]},
        CLASSIFIER,
    ),
    "each for itself": (MIXED, {"ignore": ["site", "v"]}, trees_of()),
    "joint": (
        NUMBERS,
        {"ignore": ["site", "k", "w"]},
        trees_of(strategy="joint", joint_trees="one_output_per_tree"),
    ),
    "task as feature": (
        {"v": NumericTarget(column="v")},
        SITES | {"ignore": ["u", "k", "w"]},
        trees_of(strategy="feature"),
    ),
}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=300), "b": rng.normal(5e4, 1e3, 300)})
    frame["c"] = rng.choice(list("xyz"), 300)
    frame["site"] = rng.choice(["p", "q", "r"], 300)
    frame["u"] = frame.a * 3 + 1e3
    frame["v"] = frame.b / 100 + (frame.c == "x") + (frame.site == "p")
    frame["k"] = np.where(frame.a < -0.5, "lo", np.where(frame.b > 5e4, "mid", "hi"))
    frame["w"] = np.where(frame.a > 0, "yes", "no")
    frame.loc[rng.random(300) < 0.1, "a"] = np.nan
    return frame


@pytest.fixture(scope="module")
def models(table, tmp_path_factory):
    found = {}
    for name, (tasks, arguments, block) in CASES.items():
        data = TableDataModule(tasks, table=table, predict=table, **arguments)
        data.fit()
        model = build(block, data, seed=0).fit(data.dataset("train"), data.dataset("val"))
        path = tmp_path_factory.mktemp("boost") / "model.json"
        write_model(path, model, {"data": {"task_column": data.task_column}})
        raw = model.predict_raw(data.dataset("predict"))
        answer = {task: model.tasks[task].activate(values).numpy() for task, values in raw.items()}
        found[name] = (path, answer)
    return found


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "long"
    trees_build.build_trees(models["long"][0].parent, out)
    return out


@pytest.mark.parametrize("options", [{}, {"layout": "folded"}, {"ml": 5}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_folders_answer_as_the_model_does_for_every_task(name, options, models, table, tmp_path):
    path, answer = models[name]
    manifest = trees_build.build_trees(path, tmp_path / "out", **options)
    assert not [finding for finding in check(tmp_path / "out") if finding.failure]
    found = Predictor(tmp_path / "out").predict({c: table[c].tolist() for c in table})
    assert list(found) == list(answer)
    for task, values in answer.items():
        assert found[task].shape == values.shape
        assert np.abs(found[task] - values).max() <= 1e-5 * max(1.0, np.abs(values).max())
    report = json.loads((tmp_path / "out/report/parity.json").read_text())
    assert set(report["tasks"]) == set(answer)
    assert {held["mismatches"] for held in report["leaves"].values()} == {0}
    assert manifest["kind"] == "trees"


def test_a_folder_says_what_a_runtime_has_to_know(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["variants"][0]["graphs"] == {"*": "trees.onnx"}
    assert [entry["index"] for entry in manifest["tasks"]] == [0, 1, 2]
    assert {entry["name"]: entry["dtype"] for entry in manifest["inputs"]} == {
        "features": "float32",
        "task": "int64",
    }
    preprocess = json.loads((folder / "preprocess.json").read_text())
    assert preprocess["kind"] == "trees"
    assert preprocess["task_column"] == "site"
    assert [task["level"] for task in preprocess["tasks"]] == ["p", "q", "r"]
    labels = json.loads((folder / "labels.json").read_text())
    assert labels["k_p"]["classes"] == ["hi", "lo", "mid"]


def test_two_builds_are_equal(models, folder, tmp_path):
    trees_build.build_trees(models["long"][0], tmp_path / "again")
    for name in ("trees.onnx", "preprocess.json", "labels.json", "report/parity.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_wrong_comparison_leaves_no_folder(models, tmp_path, monkeypatch):
    def less_or_equal(*args):
        return tree_nodes.regressor(*args[:-1], "BRANCH_LEQ")

    monkeypatch.setattr(trees, "regressor", less_or_equal)
    with pytest.raises(ParityError, match="rows differ"):
        trees_build.build_trees(models["wide"][0], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_changed_graph_is_caught(models, tmp_path):
    out = tmp_path / "out"
    trees_build.build_trees(models["wide"][0], out)
    data = bytearray((out / "trees.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (out / "trees.onnx").write_bytes(data)
    with pytest.raises(FolderError, match=r"trees\.onnx"):
        check(out)


def test_mistakes_are_explained(models, tmp_path):
    path = models["wide"][0]
    with pytest.raises(UnknownNameError, match="prediction"):
        trees_build.build_trees(path, tmp_path / "out", tasks=["predictoin"], layout="folded")
    (tmp_path / "model.json").write_text('{"learner": {}}')
    with pytest.raises(ArgumentError, match="format"):
        trees_build.build_trees(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outputs_of_all_tasks_have_a_name_of_their_own():
    assert trees_build.output_name(["depth"]) == "prediction"
    assert trees_build.output_name(["prediction", "prediction_"]) == "prediction__"
