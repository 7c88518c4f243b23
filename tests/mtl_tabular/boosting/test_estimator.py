"""scikit-learn's own checks, and its tools with the task routed to them."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mtl_tabular.boosting import RMTGBClassifier, RMTGBRegressor

OPTIONS = {
    "shared_rounds": 20, "group_rounds": 3, "task_rounds": 3, "min_task_rows": 1,
    "early_stopping": False,
}  # fmt: skip


@parametrize_with_checks(
    [
        RMTGBRegressor(**OPTIONS, max_bin=1024, random_state=0),
        RMTGBClassifier(**OPTIONS, max_bin=1024, random_state=0),
    ],
    # Equal to seven digits: weights times derivatives, or their sum over rows, in float32.
    expected_failed_checks=lambda estimator: (
        {"check_sample_weight_equivalence_on_dense_data": "float32, see test_weights_are_rows"}
        if isinstance(estimator, RMTGBClassifier)
        else {}
    ),
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def data():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.uniform(-1, 1, size=(240, 3)), columns=list("abc"))
    task = np.repeat(["u", "v", "w"], 80)
    return X, X.a + np.where(task == "w", -2, 2) * X.b, task


def test_pipelines_and_searches_route_the_task():
    X, y, task = data()
    with sklearn.config_context(enable_metadata_routing=True):
        model = RMTGBRegressor(random_state=0, shared_rounds=0, task_rounds=0)
        for method in ("fit", "predict", "score"):
            getattr(model, f"set_{method}_request")(task=True)
        pipeline = make_pipeline(StandardScaler(), model)
        pipeline.fit(X, y, task=task)
        assert pipeline.score(X, y, task=task) > 0.7
        folds = KFold(3, shuffle=True, random_state=0)
        search = GridSearchCV(pipeline, {"rmtgbregressor__group_rounds": [2, 60]}, cv=folds)
        search.fit(X, y, task=task)
        assert search.best_params_ == {"rmtgbregressor__group_rounds": 60}


def test_a_task_column_needs_no_routing():
    X, y, task = data()
    frame = X.assign(site=task)
    model = RMTGBRegressor(task_column="site", random_state=0, group_rounds=60, **{
        "shared_rounds": 0, "task_rounds": 0})  # fmt: skip
    groups = np.arange(len(y)) % 4
    scores = cross_val_score(model, frame, y, groups=groups, cv=GroupKFold(4))
    assert scores.min() > 0.5


def test_fitting_leaves_arguments_alone():
    X, y, task = data()
    model = RMTGBRegressor(**OPTIONS, random_state=0)
    before = model.get_params()
    assert model.fit(X, y, task=task) is model
    assert model.get_params() == before
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X.rename(columns={"a": "z"}), task)
