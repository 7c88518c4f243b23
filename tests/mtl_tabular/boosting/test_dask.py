"""A local cluster of two workers: the model of one process, and what is refused."""

import json
import logging
from itertools import pairwise
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, MultiLock
from toy_tables import write_long_csv

from mtl_core.errors import ArgumentError, EmptySplitError
from mtl_tabular.__main__ import main
from mtl_tabular.boosting import RMTGBClassifier, RMTGBRegressor
from mtl_tabular.boosting.dask import divide, fit_dask
from mtl_tabular.data.columns import ColumnError

SMALL = {"shared_rounds": 6, "group_rounds": 8, "task_rounds": 4, "random_state": 0}
FEATURES = ["a", "b", "c"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def client():
    """Processes, as on several machines; one of them has nothing to do where there is one task."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as found,
    ):  # fmt: skip
        yield found


def frame(seed=0, rows=(70, 50, 40, 60, 30, 45)):
    """Rows in any order, features missing; numbers of few values have the same bins anywhere."""
    rng = np.random.default_rng(seed)
    task = rng.permutation(np.repeat(np.arange(len(rows)), rows))
    X = rng.uniform(-1, 1, size=(len(task), 3)).round(2)
    X[rng.random(X.shape) < 0.1] = np.nan
    f = 2 * np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1] * X[:, 2])
    y = np.where(task >= 4, -1, 1) * f + 0.1 * task
    table = pd.DataFrame(X, columns=FEATURES)
    weights = rng.integers(0, 3, len(task))
    return table.assign(site=[f"s{t}" for t in task], y=y, w=weights)


def partitions(table, *ends):
    """A Dask table cut at these rows, so that partitions may be empty."""
    edges = [0, *ends, len(table)]
    parts = [table.iloc[a:b] for a, b in pairwise(edges)]
    return dd.from_map(lambda part: part, parts, meta=table.iloc[:0])


pytestmark = pytest.mark.slow  # workers are processes that import the suite

COLUMNS = {"target": "y", "task": "site", "features": FEATURES}
OPTIONS = {
    "sequential": {},
    "interleaved": {"schedule": "interleaved", "task_balanced": True, "task_feature": "one-hot"},
    "auto": {"schedule": "auto", "patience": 2, "shared_rounds": 3, "group_rounds": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_two_workers_train_the_model_of_one_process(client, options, tmp_path):
    table, held = frame(), frame(1)
    here = RMTGBRegressor(**SMALL | options)
    here.fit(
        table[FEATURES], table["y"], task=table["site"], sample_weight=table["w"],
        validation=(held[FEATURES], held["y"], held["site"]),
    )  # fmt: skip
    there = RMTGBRegressor(**SMALL | options)
    found = fit_dask(
        there, client, partitions(table, 0, 90, 91, 200), **COLUMNS, weight="w",
        validation=partitions(held, 100),
    )  # fmt: skip
    assert found is there
    assert there.model_.rounds == here.model_.rounds
    assert there.chosen_ == here.chosen_
    np.testing.assert_array_equal(there.tasks_, here.tasks_)
    np.testing.assert_allclose(there.model_.theta, here.model_.theta, atol=TOLERANCE)
    asked = table[FEATURES], [*table["site"][:-2], "new", None]
    np.testing.assert_allclose(there.predict(*asked), here.predict(*asked), atol=TOLERANCE)
    pd.testing.assert_frame_equal(there.task_report_, here.task_report_, rtol=1e-3)
    pd.testing.assert_frame_equal(there.task_importances(), here.task_importances(), rtol=1e-3)
    there.save(tmp_path / "model.json")
    loaded = RMTGBRegressor.load(tmp_path / "model.json")
    np.testing.assert_array_equal(loaded.predict(*asked), there.predict(*asked))


def test_classes(client):
    table, count = frame(), 3
    table["y"] = np.array(list("cab"))[pd.qcut(table["y"], count, labels=False)]
    options = SMALL | {"early_stopping": False}
    here, there = RMTGBClassifier(**options), RMTGBClassifier(**options)
    here.fit(table[FEATURES], table["y"], task=table["site"])
    fit_dask(there, client, partitions(table, 150), **COLUMNS)
    asked = table[FEATURES], table["site"]
    assert there.classes_.tolist() == here.classes_.tolist()
    np.testing.assert_allclose(
        there.predict_proba(*asked), here.predict_proba(*asked), atol=TOLERANCE
    )


def test_where_the_rows_lie_changes_nothing(client):
    """A task in one partition only, others in all; rows in the order of the table."""
    table = frame().sort_values("site", kind="stable")
    options = SMALL | {"early_stopping": False}
    models = [
        fit_dask(RMTGBRegressor(**options), client, partitions(table, *ends), **COLUMNS)
        for ends in ((), (70, 120, 120, 160, 220, 250))
    ]
    predicted = [m.predict(table[FEATURES], table["site"]) for m in models]
    np.testing.assert_allclose(predicted[0], predicted[1], atol=1e-9)


def test_every_worker_holds_out_a_part_of_its_tasks(client):
    table = frame()
    there = fit_dask(RMTGBRegressor(**SMALL), client, partitions(table, 150), **COLUMNS)
    report = there.task_report_
    whole = table["site"].value_counts().sort_index()
    np.testing.assert_array_equal(report["rows"] + report["held_out"], whole)
    assert report["held_out"].sum() == pytest.approx(0.15 * len(table), abs=2)
    assert there.score(table[FEATURES], table["y"], table["site"]) > 0.5


def test_one_task_trains_on_one_worker(client):
    table = frame()
    options = SMALL | {"early_stopping": False}
    named = {"target": "y", "features": FEATURES}
    there = fit_dask(RMTGBRegressor(**options), client, partitions(table, 100), **named)
    here = RMTGBRegressor(**options).fit(table[FEATURES], table["y"])
    found, expected = there.predict(table[FEATURES]), here.predict(table[FEATURES])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_worker_without_validation_rows(client):
    table, held = frame(), frame(1)
    held = held[held["site"] == "s0"]
    here, there = RMTGBRegressor(**SMALL), RMTGBRegressor(**SMALL)
    here.fit(
        table[FEATURES], table["y"], task=table["site"],
        validation=(held[FEATURES], held["y"], held["site"]),
    )  # fmt: skip
    fit_dask(there, client, partitions(table, 99), **COLUMNS, validation=partitions(held))
    assert there.model_.rounds == here.model_.rounds
    asked = table[FEATURES], table["site"]
    np.testing.assert_allclose(there.predict(*asked), here.predict(*asked), atol=TOLERANCE)


def test_mistakes_are_explained(client):
    table = frame()

    def fit(table=table, columns=None, validation=None, **options):
        model = RMTGBRegressor(**SMALL | options)
        told = COLUMNS | (columns or {})
        if validation is not None:
            validation = partitions(validation)
        return fit_dask(model, client, partitions(table, 100), **told, validation=validation)

    for name, value in (("reference_mode", True), ("warm_start", True), ("progress", True),
                        ("callbacks", [print]), ("task_column", "site")):  # fmt: skip
        with pytest.raises(ArgumentError, match=f"{name} must be .* for a training on Dask"):
            fit(**{name: value})
    with pytest.raises(ArgumentError, match="task_rounds must be 0 on Dask where features are"):
        fit(categorical_features=["a"])
    with pytest.raises(ColumnError, match="Did you mean site"):
        fit(columns={"task": "sites"})
    with pytest.raises(ColumnError, match="'site' must hold numbers, or codes"):
        fit(columns={"task": "", "features": ["a", "site"]})
    with pytest.raises(ArgumentError, match="tasks must be there for every row"):
        fit(table.assign(site=table["site"].where(table["a"] > 0)))
    with pytest.raises(ArgumentError, match="targets must be there for every row"):
        fit(table.assign(y=table["y"].where(table["a"] > 0)))
    with pytest.raises(ArgumentError, match=r"the training's tasks only, found .'other'."):
        fit(validation=table.assign(site="other"))
    with pytest.raises(EmptySplitError, match="validation"):
        fit(validation=table.iloc[:0])
    with pytest.raises(EmptySplitError, match="0 rows of positive weight"):
        fit(table.assign(w=0), columns={"weight": "w"})


def test_an_error_of_one_worker_is_told_and_the_cluster_goes_on(client):
    class Broken(RMTGBRegressor):
        def _rows(self, values, targets, weights, tasks, **options):
            if 0 in tasks:
                raise ArgumentError("rows", "be whole on every worker", "a broken one")
            return super()._rows(values, targets, weights, tasks, **options)

    table = partitions(frame(), 100)
    with pytest.raises(ArgumentError, match="rows must be whole on every worker"):
        fit_dask(Broken(**SMALL), client, table, **COLUMNS)
    model = fit_dask(RMTGBRegressor(**SMALL), client, table, **COLUMNS)
    assert model.model_.rounds[0] > 0


def test_tasks_are_divided_evenly():
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 1000, 200)
    owner = divide(rows, 7)
    loads = np.bincount(owner, rows, 7)
    assert loads.max() - loads.min() <= rows.max()
    assert loads.max() <= 1.01 * rows.sum() / 7
    assert (np.bincount(divide(np.ones(5, int), 5)) == 1).all()


def test_a_broken_connection_after_the_training_does_not_lose_it(client, monkeypatch, caplog):
    """Seen once: the lock was given back twice by a retried message."""
    release = MultiLock.release

    def twice(lock):
        release(lock)
        lock._locked = True
        release(lock)

    monkeypatch.setattr(MultiLock, "release", twice)
    table = partitions(frame()[[*FEATURES, "site", "y"]], 100)
    model = fit_dask(RMTGBRegressor(**SMALL), client, table, target="y", task="site")
    assert len(model.tasks_) == 6
    assert "not given back" in caplog.text


def test_the_verb_boost_trains_on_a_cluster(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_long_csv(Path("data/long.csv"))
    config = Path(__file__).parents[3] / "configs" / "boost" / "long.yaml"
    words = ["-c", str(config), "--progress=false", "--single=false", "--model.shared_rounds=5"]
    words += ["--model.group_rounds=5", "--model.task_rounds=3"]
    main(["boost", "fit", *words, "--out=here"])
    address = client.scheduler_info()["address"]
    main(["boost", "fit", *words, "--out=there", f"--scheduler={address}"])
    here, there = (
        json.loads(Path(folder, "metrics.json").read_text()) for folder in ("here", "there")
    )
    for name, scores in here["val"]["tasks"].items():
        for metric, value in scores.items():
            assert there["val"]["tasks"][name][metric] == pytest.approx(value, rel=1e-3)
