"""``boost``: every config end to end, reloaded models, messages of mistakes.

Also the parts that only it uses: `mtl_tabular.boosting.outcome` and `mtl_tabular.boosting.stacked`.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from toy_tables import long_frame, write_long_csv, write_wide_csv

from mtl_tabular.__main__ import main
from mtl_tabular.boosting.model_file import read_model
from mtl_tabular.data import TableDataModule
from mtl_tabular.tasks import NumericTarget

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "boost").glob("*.yaml"))
LONG = next(str(path) for path in CONFIGS if path.stem == "long")
WIDE = next(str(path) for path in CONFIGS if path.stem == "wide")
QUIET = ["--progress=false"]
SMALL = ["--model.shared_rounds=5", "--model.group_rounds=5", "--model.task_rounds=5"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_long_csv(Path("data/long.csv"))
    write_wide_csv(Path("data/table.csv"), missing=True)


def boost(verb: str, config: str, *words: str) -> None:
    main(["boost", verb, "-c", config, *QUIET, *words])


def refused(capsys, verb: str, config: str, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        boost(verb, config, *words)
    assert ended.value.code == 2
    return capsys.readouterr().err


def rows_of(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_runs_end_to_end(path, capsys):
    out = Path(yaml.safe_load(path.read_text())["out"])
    main(["boost", "fit", "-c", str(path)])
    main(["boost", "evaluate", "-c", str(path)])
    main(["boost", "predict", "-c", str(path)])
    shown = capsys.readouterr().out
    assert "100%" not in shown  # bars count rounds
    model, _ = read_model(out / "model.json")
    metrics = json.loads((out / "metrics.json").read_text())
    for split in ("val", "test"):
        assert set(metrics[split]["tasks"]) == set(model.tasks)
    predictions = pd.read_csv(out / "predictions.csv")
    assert set(model.tasks) < set(predictions.columns)
    found = {(row["split"], row["task"]) for row in rows_of("runs/results.csv")}
    assert {(split, task) for split in ("val", "test") for task in model.tasks} <= found


def test_long_run_reports_tasks_scores_and_gains(capsys):
    boost("fit", LONG, *SMALL)
    boost("evaluate", LONG, *SMALL)
    report = pd.read_csv("runs/boost/long/task_report.csv")
    assert report.task.tolist() == [f"score_{site}" for site in range(4)]
    with Image.open("runs/boost/long/task_scores.png") as picture:
        assert min(picture.size) > 200
    shown = capsys.readouterr().out
    for word in ("overall", "mean", "worst: score_", "Δm = "):
        assert word in shown
    metrics = json.loads(Path("runs/boost/long/metrics.json").read_text())
    held, tasks = metrics["test"], metrics["test"]["tasks"]
    assert held["delta_m"] == pytest.approx(np.mean(list(held["gain"].values())))
    assert held["mean"]["rmse"] == pytest.approx(np.mean([s["rmse"] for s in tasks.values()]))
    assert held["worst"]["rmse"] == max(s["rmse"] for s in tasks.values())
    assert held["worst"]["r2"] == min(s["r2"] for s in tasks.values())
    assert held["worst"]["r2"] <= held["mean"]["r2"]
    rows = rows_of("runs/results.csv")
    assert {row["method"] for row in rows} == {"single", "RMTGBRegressor"}
    assert [row["task"] for row in rows if row["metric"] == "delta_m"] == ["all", "all"]


def test_scores_are_those_of_the_written_predictions():
    boost("fit", LONG, *SMALL, "--single=false")
    boost("evaluate", LONG, "--single=false")
    boost("predict", LONG, "--single=false")
    frame, written = long_frame(), pd.read_csv("runs/boost/long/predictions.csv")
    rows = frame.iloc[written.key]
    tasks = json.loads(Path("runs/boost/long/metrics.json").read_text())["test"]["tasks"]
    for site in range(4):
        own = (rows.site == site).to_numpy()
        error = written[f"score_{site}"].to_numpy()[own] - rows.score.to_numpy()[own]
        assert tasks[f"score_{site}"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)


def test_same_seed_same_file():
    for out in ("one", "two"):
        boost("fit", LONG, *SMALL, "--single=false", f"--out={out}")
    boost("fit", LONG, *SMALL, "--single=false", "--out=other", "--seed=1")
    one, two, other = (Path(out, "model.json").read_bytes() for out in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_boosted_trees_come_back_from_their_file():
    boost("fit", WIDE)
    model, settings = read_model("runs/boost/wide/model.json")
    frame = pd.read_csv("data/table.csv")
    assert settings["model"]["class_path"].endswith("BoostedTrees")
    model.save("trees.json")
    again = type(model).load("trees.json")
    for name, raw in model.predict_raw(frame).items():
        np.testing.assert_array_equal(again.predict_raw(frame)[name], raw)
    assert again.tasks == model.tasks
    assert again.parameters == model.parameters
    data = TableDataModule(model.tasks, schema=model.schema, table=frame)
    encoded, plain = data.dataset("test"), frame.iloc[data.dataset("test").chosen]
    assert model.evaluate(encoded) == model.evaluate(plain)


def test_wide_numeric_targets_are_stacked_whatever_their_units():
    frame = pd.read_csv("data/table.csv")
    frame["tax"] = frame.price * 1000 + 7
    frame.loc[::4, "tax"] = None
    frame.drop(columns=["click", "kind"]).to_csv("data/numbers.csv", index=False)
    spec = {
        "out": "numbers",
        "tasks": {name: {"class_path": "NumericTarget"} for name in ("price", "tax")},
        "model": {"class_path": "RMTGBRegressor", "init_args": {"task_rounds": 0}},
        "data": {"table": "data/numbers.csv"},
    }
    Path("numbers.yaml").write_text(yaml.safe_dump(spec))
    boost("fit", "numbers.yaml", "--model.group_rounds=20", "--model.shared_rounds=40")
    boost("evaluate", "numbers.yaml")
    held = json.loads(Path("numbers/metrics.json").read_text())["test"]
    assert held["overall"] == {}  # the units differ
    assert held["tasks"]["tax"]["rmse"] > 100 * held["tasks"]["price"]["rmse"]
    assert held["worst"]["r2"] > 0.5
    report = pd.read_csv("numbers/task_report.csv").set_index("task")
    assert report.rows["tax"] < report.rows["price"]


def test_wide_classes_are_stacked():
    frame = pd.read_csv("data/table.csv")[["age", "income", "click"]]
    frame["rich"] = (frame.income > frame.income.median()).astype(int)
    frame.to_csv("data/classes.csv", index=False)
    spec = {
        "out": "classes",
        "tasks": {name: {"class_path": "BinaryTarget"} for name in ("click", "rich")},
        "model": {"class_path": "RMTGBClassifier"},
        "data": {"table": "data/classes.csv"},
    }
    Path("classes.yaml").write_text(yaml.safe_dump(spec))
    boost("fit", "classes.yaml", *SMALL)
    boost("evaluate", "classes.yaml")
    boost("predict", "classes.yaml")
    held = json.loads(Path("classes/metrics.json").read_text())["test"]
    assert held["tasks"]["rich"]["auroc"] > 0.9
    assert {"auroc", "log_loss"} <= set(held["overall"])
    written = pd.read_csv("classes/predictions.csv")
    np.testing.assert_allclose(written["rich/0"] + written["rich/1"], 1, atol=1e-5)
    assert ((written["rich/1"] > 0.5) == (written["rich"] == 1)).all()


def test_given_references_enter_the_gain():
    Path("known.yaml").write_text(
        yaml.safe_dump({"tasks": {f"score_{i}": {"explained_variance": 0.5} for i in range(4)}})
    )
    boost("fit", LONG, *SMALL, "--single=false", "--references=known.yaml")
    held = json.loads(Path("runs/boost/long/metrics.json").read_text())["val"]
    for name, scores in held["tasks"].items():
        assert held["gain"][name] == pytest.approx(100 * (scores["explained_variance"] - 0.5) / 0.5)


def test_new_tables_are_predicted_and_unknown_tasks_told(capsys):
    boost("fit", LONG, *SMALL, "--single=false")
    frame = long_frame(rows=6).drop(columns="score")
    frame.to_csv("new.csv", index=False)
    boost("predict", LONG, "--data.predict=new.csv")
    assert pd.read_csv("runs/boost/long/predictions.csv").key.tolist() == list(range(6))
    frame.assign(site=[0, 1, 2, 3, 9, 9]).to_csv("new.csv", index=False)
    text = refused(capsys, "predict", LONG, "--data.predict=new.csv")
    assert "must name a task of training (0, 1, 2, 3), found 9 in rows [4, 5]" in text
    boost("predict", LONG, "--data.predict=new.csv", "--unknown_tasks=mean")
    written = pd.read_csv("runs/boost/long/predictions.csv")
    known = written[[f"score_{i}" for i in range(4)]]
    assert np.isfinite(written.unknown).all()
    assert not np.allclose(written.unknown, known.score_0)


def test_mistakes_in_configs_have_a_message(capsys):
    assert "Did you mean RMTGBRegressor" in refused(
        capsys, "fit", LONG, "--model.class_path=RMTGBRegresor"
    )
    mixed = refused(capsys, "fit", WIDE, '--model={"class_path": "RMTGBRegressor"}')
    assert "tasks must be of one kind" in mixed
    assert "price: NumericTarget" in mixed
    assert "be RMTGBRegressor for NumericTarget" in refused(
        capsys, "fit", LONG, '--model={"class_path": "RMTGBClassifier"}'
    )
    assert "learning_rate must" in refused(capsys, "fit", LONG, "--model.learning_rate=2")
    assert "'sight'" in refused(capsys, "fit", LONG, "--data.task_column=sight")
    assert "Did you mean evaluate" in refused(capsys, "evaluat", LONG)
    assert "saved must name the model file" in refused(capsys, "predict", LONG)
    assert not Path("runs/boost/long").exists()


def test_mistakes_after_training_have_a_message(capsys):
    boost("fit", LONG, *SMALL, "--single=false")
    long_frame(rows=6).drop(columns="x1").to_csv("new.csv", index=False)
    assert "'x1'" in refused(capsys, "predict", LONG, "--data.predict=new.csv")
    text = refused(capsys, "evaluate", LONG, "--data.split_seed=3")
    assert "data.split_seed must be 0, as in training" in text
    Path("broken.json").write_text("{")
    assert "saved must name" in refused(capsys, "evaluate", LONG, "--saved=broken.json")


def test_records_refuse_what_they_are_not_for(capsys):
    spec = yaml.safe_load(Path(LONG).read_text())
    spec["tasks"]["score"]["init_args"] = {"loss": "mae"}
    Path("mae.yaml").write_text(yaml.safe_dump(spec))
    assert "be mse for RMTGBRegressor" in refused(capsys, "fit", "mae.yaml")
    spec["tasks"]["score"]["init_args"] = {"weight": -1.0}
    Path("weight.yaml").write_text(yaml.safe_dump(spec))
    assert "weight must be positive" in refused(capsys, "fit", "weight.yaml")
    with pytest.raises(ValueError, match="positive"):
        NumericTarget(weight=-1.0)


def test_features_on_the_disk_give_the_same_model(capsys):
    boost("fit", LONG, *SMALL)
    boost("evaluate", LONG, *SMALL)
    inside = json.loads(Path("runs/boost/long/metrics.json").read_text())
    disk = ["--external=true", "--cache_dir=cache", "--out=runs/disk"]
    for verb in ("fit", "evaluate", "predict"):
        boost(verb, LONG, *SMALL, *disk)
    outside = json.loads(Path("runs/disk/metrics.json").read_text())
    for name, scores in inside["test"]["tasks"].items():
        for metric, value in scores.items():
            assert outside["test"]["tasks"][name][metric] == pytest.approx(value, rel=1e-5)
    assert not list(Path("cache").glob("boost-*"))
    message = refused(capsys, "fit", WIDE, "--external=true", "--model=BoostedTrees")
    assert "external must be left out but for RMTGBRegressor" in message


def test_a_scheduler_that_is_not_there_is_explained(capsys, monkeypatch):
    message = refused(capsys, "fit", LONG, "--scheduler=tcp://127.0.0.1:1", "--external=true")
    assert "external must be false where a scheduler is given" in message
    message = refused(capsys, "fit", LONG, *SMALL, "--scheduler=nonsense://1")
    assert "scheduler must be the address of a Dask scheduler that answers" in message
