"""scikit-learn's own checks, and its tools around the estimators."""

import io
import pickle
import runpy
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mtl_tabular.estimators import MultiTaskClassifier, MultiTaskEstimator, MultiTaskRegressor
from mtl_tabular.networks import SharedBottom

ROOT = Path(__file__).parents[2]
SMALL = partial(SharedBottom, token_width=8, shared=(32,), tower=(16,), dropout=0.0)
QUICK = {"max_epochs": 4, "batch_size": 32, "learning_rate": 0.05, "accelerator": "cpu"}


@parametrize_with_checks(
    [
        MultiTaskClassifier(SMALL, **QUICK),
        MultiTaskRegressor(SMALL, **QUICK),
        MultiTaskEstimator(network=SMALL, **QUICK),
    ]
)
def test_scikit_learn_accepts_the_estimators(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    return X, np.stack([2 * X[:, 0], X[:, 1] - 3], 1)


def test_grid_search_over_networks_in_a_pipeline(table):
    X, y = table
    pipeline = make_pipeline(StandardScaler(), MultiTaskRegressor(random_state=0, **QUICK))
    grid = {
        "multitaskregressor__network": [SMALL, "shared_bottom"],
        "multitaskregressor__learning_rate": [1e-6, 0.05],
    }
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_params_["multitaskregressor__learning_rate"] == 0.05
    assert search.predict(X).shape == y.shape


def test_cross_validation(table):
    X, y = table
    model = MultiTaskRegressor(SMALL, random_state=0, **QUICK)
    assert cross_val_score(model, X, y, cv=2).shape == (2,)
    assert cross_val_predict(model, X, y, cv=2).shape == y.shape


def test_copies_by_pickle_and_joblib_predict_the_same(table):
    X, y = table
    model = MultiTaskRegressor(SMALL, random_state=0, balancer="pcgrad", **QUICK).fit(X, y)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(file)):
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))
        assert all(p.device.type == "cpu" for p in copy.network_.parameters())
    assert not hasattr(clone(model), "network_")


def test_set_output_names_the_shared_features(table):
    X, y = table
    model = MultiTaskRegressor(SMALL, random_state=0, **QUICK).set_output(transform="pandas")
    frame = model.fit(X, y).transform(X)
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == [f"shared{k}" for k in range(32)]


def test_unfitted_and_other_columns_are_refused(table):
    X, y = table
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = MultiTaskRegressor(SMALL, random_state=0, **QUICK).fit(frame, y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="X has 2 features"):
        MultiTaskRegressor(SMALL, **QUICK).fit(X, y).predict(X[:, :2])


def test_the_example_runs(tmp_path, capsys):
    example = runpy.run_path(str(ROOT / "examples/tabular_sklearn.py"))
    example["main"](200, 2, tmp_path)
    assert "euros" in capsys.readouterr().out
    assert (tmp_path / "importance.png").stat().st_size > 0
