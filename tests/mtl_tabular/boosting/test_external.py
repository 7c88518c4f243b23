"""Training from the disk: the model of a training in memory, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtl_core.errors import ArgumentError, CheckpointWriteError, EmptySplitError
from mtl_tabular.boosting import RMTGBClassifier, RMTGBRegressor, matrix
from mtl_tabular.boosting.external import fit_external
from mtl_tabular.boosting.pieces import TablePieces

SMALL = {"shared_rounds": 8, "group_rounds": 10, "task_rounds": 5, "random_state": 0}
FEATURES = ["a", "b", "code"]


def frame(seed=0, rows=60, tasks=6):
    """Rows in any order, with missing features, codes of categories, and weights some of them 0."""
    rng = np.random.default_rng(seed)
    n = rows * tasks
    task = rng.permutation(np.repeat(np.arange(tasks), rows))
    X = rng.uniform(-1, 1, size=(n, 2)).round(2)
    X[rng.random(X.shape) < 0.1] = np.nan
    code = rng.integers(0, 5, n)
    y = np.where(task >= 4, -1, 1) * (2 * np.nan_to_num(X[:, 0]) + (code % 2)) + 0.1 * task
    return pd.DataFrame(
        {"a": X[:, 0], "y": y, "site": [f"s{t}" for t in task], "b": X[:, 1], "code": code,
         "w": rng.integers(0, 3, n)}
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Several pages, and pieces of rows that end anywhere."""
    monkeypatch.setattr(matrix, "PAGE_BYTES", 4 * len(FEATURES) * 70)


def pieces(table, **columns):
    named = {"target": "y", "task": "site", "features": FEATURES, "rows": 47}
    return TablePieces(table, **{**named, **columns})


OPTIONS = {
    "early stopping": {},
    "all rounds": {"early_stopping": False, "subsample": 0.7, "colsample": 0.7},
    "interleaved": {"schedule": "interleaved", "task_balanced": True},
    "auto": {"schedule": "auto", "patience": 3},
    "categories": {"categorical_features": ["code"], "task_feature": "categorical"},
    "one-hot tasks": {"task_feature": "one-hot"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_model_is_that_of_memory(options, tmp_path):
    table = frame()
    inside = RMTGBRegressor(**SMALL | options)
    inside.fit(table[FEATURES], table["y"], task=table["site"], sample_weight=table["w"])
    outside = RMTGBRegressor(**SMALL | options)
    assert fit_external(outside, pieces(table, weight="w"), cache_dir=tmp_path) is outside
    assert outside.model_.rounds == inside.model_.rounds
    assert outside.chosen_ == inside.chosen_
    asked = table[FEATURES], table["site"]
    np.testing.assert_allclose(outside.predict(*asked), inside.predict(*asked), atol=1e-6)
    pd.testing.assert_frame_equal(outside.task_report_, inside.task_report_, rtol=1e-5)
    assert outside.feature_names_in_.tolist() == FEATURES
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
def test_files_of_any_kind(kind, tmp_path):
    table, held = frame(), frame(1, rows=20)
    path = tmp_path / "rows"
    if kind == "folder":
        path.mkdir()
        for i in range(3):
            table.iloc[i * 120 : (i + 1) * 120].to_parquet(path / f"{i}.parquet")
    elif kind == "csv":
        path = path.with_suffix(".csv")
        table.to_csv(path, index=False)
    else:
        path = path.with_suffix(".parquet")
        table.to_parquet(path)
    inside = RMTGBClassifier(**SMALL)
    labels = table["y"] > 0, held["y"] > 0
    inside.fit(
        table[FEATURES], labels[0], task=table["site"],
        validation=(held[FEATURES], labels[1], held["site"]),
    )  # fmt: skip
    read = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    read["y"] = read["y"] > 0
    outside = RMTGBClassifier(**SMALL)
    fit_external(
        outside, pieces(read), cache_dir=tmp_path / "cache",
        validation=pieces(held.assign(y=labels[1])),
    )  # fmt: skip
    np.testing.assert_allclose(
        outside.predict_proba(table[FEATURES], table["site"]),
        inside.predict_proba(table[FEATURES], table["site"]),
        atol=1e-6,
    )
    # Numbers straight from the file.
    number = fit_external(RMTGBRegressor(**SMALL), pieces(path), cache_dir=tmp_path / "cache")
    assert number.score(table[FEATURES], table["y"], table["site"]) > 0.5


def test_one_task_and_unknown_ones(tmp_path):
    table = frame()
    model = fit_external(RMTGBRegressor(**SMALL), pieces(table, task=""), cache_dir=tmp_path)
    assert len(model.tasks_) == 1
    model = fit_external(RMTGBRegressor(**SMALL), pieces(table), cache_dir=tmp_path)
    assert np.isfinite(model.predict(table[FEATURES][:3], ["new", None, "s1"])).all()


def test_a_task_whose_rows_all_weigh_nothing_is_none(tmp_path):
    table = frame()
    table.loc[table["site"] == "s2", "w"] = 0
    model = fit_external(RMTGBRegressor(**SMALL), pieces(table, weight="w"), cache_dir=tmp_path)
    assert "s2" not in model.tasks_


def test_mistakes_are_explained(tmp_path):
    table = frame()

    def fit(table=table, cache=tmp_path, validation=None, columns=None, **options):
        model = RMTGBRegressor(**SMALL | options)
        return fit_external(
            model, pieces(table, **(columns or {})), cache_dir=cache, validation=validation
        )

    for name, value in (("reference_mode", True), ("warm_start", True), ("task_column", "site")):
        with pytest.raises(ArgumentError, match=f"{name} must be .* for fit_external"):
            fit(**{name: value})
    with pytest.raises(ArgumentError, match="targets must be there for every row, found 'none in"):
        fit(table.assign(y=table["y"].mask(table["y"] > 1)))
    with pytest.raises(ArgumentError, match="validation must hold rows of the training's tasks"):
        fit(validation=pieces(table.assign(site="other")))
    with pytest.raises(EmptySplitError, match="'train' is empty in 0 rows"):
        fit(table.assign(w=0), columns={"weight": "w"})
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CheckpointWriteError, match="cache_dir must be a folder"):
        fit(cache=file)
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_explained_and_nothing_stays(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(CheckpointWriteError, match=r"No space left.*enough space"):
        fit_external(RMTGBRegressor(**SMALL), pieces(frame()), cache_dir=tmp_path)
    assert not list(Path(tmp_path).iterdir())


def test_without_reserved_space_zeros_are_written(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    table = frame()
    model = fit_external(RMTGBRegressor(**SMALL), pieces(table), cache_dir=tmp_path)
    inside = RMTGBRegressor(**SMALL).fit(table[FEATURES], table["y"], task=table["site"])
    asked = table[FEATURES], table["site"]
    np.testing.assert_allclose(model.predict(*asked), inside.predict(*asked), atol=1e-6)


def test_pieces_must_stay_the_same(tmp_path):
    class Shrinking:
        names = None

        def __init__(self):
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            found = list(pieces(frame()))
            return iter(found[: 5 if self.passes == 1 else 4])

    with pytest.raises(ArgumentError, match="give the same rows every time"):
        fit_external(RMTGBRegressor(**SMALL), Shrinking(), cache_dir=tmp_path)
