import csv
import errno
import json
import os

import lightning as L
import pytest
from toys import ToyNetwork, toy_loader, toy_tasks

from mtl_core.balancing import UW
from mtl_core.callbacks import Results
from mtl_core.callbacks.results import COLUMNS, csv_lines, result_rows
from mtl_core.errors import CheckpointWriteError
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Regression


def trainer(folder, *callbacks, **arguments) -> L.Trainer:
    return L.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "logger": False, **arguments},
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=list(callbacks),
    )


def fit(folder, *callbacks, tasks=None, **arguments) -> tuple[L.Trainer, MultiTaskModule]:
    run, model = (
        trainer(folder, *callbacks, **arguments),
        MultiTaskModule(tasks or toy_tasks(), ToyNetwork),
    )
    run.fit(model, toy_loader(), toy_loader(seed=1))
    return run, model


def rows(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def test_fit_and_test_are_written(tmp_path):
    results = Results(plan_hash="abc", seed=3)
    run, model = fit(tmp_path, results, UW())
    run.test(model, toy_loader(seed=2), verbose=False)
    held = json.loads((tmp_path / "metrics.json").read_text())
    assert (held["method"], held["seed"], held["plan_hash"]) == ("UW", 3, "abc")
    assert held["steps"] == 12
    assert held["seconds"] > 0
    assert held["versions"]["torch"]
    assert set(held["val"]["tasks"]) == set(held["test"]["tasks"]) == set(toy_tasks())
    best = held["val"]["best"]["size"]["rmse"]
    assert best["value"] <= held["val"]["tasks"]["size"]["rmse"]
    table = rows(tmp_path)
    assert tuple(table[0]) == COLUMNS
    assert {row["split"] for row in table} == {"val", "test"}
    expected = {(t, m) for t, task in toy_tasks().items() for m in [*task.metrics(), "loss"]}
    assert {(row["task"], row["metric"]) for row in table} == expected
    for row in table:
        section = held[row["split"]]["tasks"]
        assert float(row["value"]) == section[row["task"]][row["metric"]]
        assert (row["method"], row["seed"], row["plan_hash"]) == ("UW", "3", "abc")
        assert row["higher_is_better"] == str(row["metric"] not in ("loss", "rmse", "mae"))


def test_runs_share_the_table_and_are_told_apart(tmp_path):
    fit(tmp_path / "a", Results(table=str(tmp_path / "results.csv")), max_epochs=1)
    tasks = {"size": Regression()}
    fit(tmp_path / "b", Results(table=str(tmp_path / "results.csv")), tasks=tasks, max_epochs=1)
    assert {row["method"] for row in rows(tmp_path)} == {"Equal", "single"}


def test_fast_dev_run_writes_nothing(tmp_path):
    fit(tmp_path, Results(), fast_dev_run=True)
    assert not list(tmp_path.iterdir())


def test_groups_are_blocks_and_gains_have_rows():
    tasks = {"size": Regression(groups=("a", "b"))}
    scores = {"size": {"rmse": 1.0, "a/rmse": 2.0, "a/loss": 3.0}}
    held = result_rows(
        scores, tasks, method="m", split="val", seed=None, plan_hash="", gains={"size": 5.0}
    )
    found = {(r["task"], r["block"], r["metric"]): r["value"] for r in held}
    assert found["size", "a", "rmse"] == "2.0"
    assert found["size", "", "gain"] == found["all", "", "delta_m"] == "5.0"
    assert csv_lines(held)[0] == "m,size,rmse,1.0,False,,val,,,"


def test_full_disk_names_the_file_and_keeps_the_last_one(tmp_path, monkeypatch):
    fit(tmp_path, Results(seed=1), max_epochs=1)
    before = (tmp_path / "metrics.json").read_text(), (tmp_path / "results.csv").read_text()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointWriteError, match=r"metrics\.json: .*No space left"):
        fit(tmp_path, Results(seed=2), max_epochs=1)
    after = (tmp_path / "metrics.json").read_text(), (tmp_path / "results.csv").read_text()
    assert after == before


def test_wall_time_goes_on_after_a_resume():
    results = Results()
    results.load_state_dict({"seconds": 100.0, "best": {}})
    assert results.seconds >= 100
    assert results.state_dict()["seconds"] >= 100
