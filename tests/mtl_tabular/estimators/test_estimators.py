"""The estimators together with what trains and asks them.

`mtl_tabular.estimators.base`, `mtl_tabular.estimators.classifier`,
`mtl_tabular.estimators.regressor`, `mtl_tabular.estimators.mixed`,
`mtl_tabular.estimators.training` and `mtl_tabular.estimators.inference`.
"""

# ruff: noqa: N802  # X is scikit-learn's name for features

import logging
import random
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from mtl_core.errors import ArgumentError, LabelError, UnknownNameError
from mtl_core.hub import from_pretrained, save_pretrained
from mtl_tabular.estimators import MultiTaskClassifier, MultiTaskEstimator, MultiTaskRegressor
from mtl_tabular.networks import SharedBottom
from mtl_tabular.tasks import BinaryTarget, NumericTarget

SMALL = partial(SharedBottom, token_width=4, shared=(16,), tower=(8,), dropout=0.0)
QUICK = {"max_epochs": 2, "learning_rate": 0.05, "accelerator": "cpu", "random_state": 0}
N = 60


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=N),
            "city": rng.choice(["Lyon", "Oslo"], N),
            "code": rng.integers(3, size=N),
        }
    )
    frame.loc[:5, "a"] = np.nan
    frame.loc[3, "city"] = None
    return frame


@pytest.fixture(scope="module")
def y(X):
    frame = pd.DataFrame(
        {
            "yes": np.where(X["city"] == "Oslo", "yes", "no"),
            "kind": X["code"] + 7,
            "size": 1000.5 + 10.0 * X["code"],
        }
    )
    frame.loc[10:30, "size"] = np.nan
    frame.loc[40:45, "yes"] = None
    return frame


@pytest.fixture(scope="module")
def mixed(X, y):
    return MultiTaskEstimator(network=SMALL, categorical_features=["code"], **QUICK).fit(X, y)


def test_mixed_tables_and_targets(mixed, X, y):
    assert [c.name for c in mixed.schema_.categorical] == ["city", "code"]
    assert mixed.task_names_ == ["yes", "kind", "size"]
    assert [t.rows for t in mixed.tasks_.values()] == [N - 6, N, N - 21]
    predicted = mixed.predict(X)
    assert predicted.columns.tolist() == mixed.task_names_
    assert set(predicted["yes"]) <= {"yes", "no"}
    assert predicted["kind"].dtype.kind == "i"
    proba = mixed.predict_proba(X)
    assert [None if p is None else p.shape for p in proba] == [(N, 2), (N, 3), None]
    np.testing.assert_allclose(proba[1].sum(1), 1)
    assert [None if c is None else c.tolist() for c in mixed.classes_] == [
        ["no", "yes"],
        [7, 8, 9],
        None,
    ]
    assert mixed.score(X, y) <= 1


def test_numbers_come_in_their_own_unit(X):
    y = np.stack([1e6 + 10 * X["code"], X["code"] / 1e3], 1)
    model = MultiTaskRegressor(
        SMALL, **QUICK | {"max_epochs": 40}, categorical_features=["code"]
    ).fit(X, y)
    assert model.score(X, y) > 0.9
    assert abs(model.predict(X)[:, 0].mean() - y[:, 0].mean()) < 10


def test_a_row_is_predicted_the_same_alone_and_in_any_order(mixed, X):
    together = mixed.predict(X)["size"].to_numpy()
    alone = [mixed.predict(X.iloc[[i]])["size"].iloc[0] for i in range(4)]
    np.testing.assert_allclose(alone, together[:4], rtol=1e-12)
    np.testing.assert_allclose(mixed.predict(X[::-1])["size"][::-1], together, rtol=1e-12)


def test_polars_frames_and_mappings_train_the_same_model(mixed, X, y):
    twin = MultiTaskEstimator(network=SMALL, categorical_features=[2], **QUICK)
    twin.fit(pl.from_pandas(X), {name: y[name].to_numpy() for name in y})
    pd.testing.assert_frame_equal(twin.predict(pl.from_pandas(X)), mixed.predict(X))


def test_seeds_repeat_and_leave_global_generators_alone(X, y):
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    fits = [
        MultiTaskRegressor(SMALL, **QUICK | {"random_state": seed}).fit(X, y[["size"]]).predict(X)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(fits[0], fits[1])
    assert (fits[0] != fits[2]).any()
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_missing_labels_of_one_task_leave_the_other_a_model(X):
    y = np.stack([np.arange(N) % 2.0, np.arange(N) % 3.0], 1)
    y[: N // 2, 0] = np.nan
    model = MultiTaskClassifier(SMALL, **QUICK).fit(X, y)
    assert model.tasks_["y0"].rows == N // 2
    assert model.predict(X).dtype == np.float64
    right = model.predict(X) == y
    expected = (right[N // 2 :, 0].mean() + right[:, 1].mean()) / 2
    assert model.score(X, y) == pytest.approx(expected)


def test_early_stopping_keeps_the_best_epoch(X, y):
    model = MultiTaskEstimator(
        network=SMALL, early_stopping=True, validation_fraction=0.3, patience=2, **QUICK
    ).set_params(max_epochs=12)
    model.fit(X, y[["kind", "size"]])
    keys = [f"val/{name}/{task.primary}" for name, task in model.tasks_.items()]
    scores = [np.mean([row[key] for key in keys]) for row in model.history_]
    best = int(np.argmax(scores))
    assert len(scores) == min(12, best + 1 + 2)


def test_lightning_is_quiet_and_its_loggers_as_before(X, y, capsys):
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    MultiTaskRegressor(SMALL, **QUICK).fit(X, y[["size"]])
    assert capsys.readouterr() == ("", "")
    assert logger.level == level


def test_a_last_batch_of_one_row_is_left_out(X, y):
    model = MultiTaskClassifier(SMALL, batch_size=20, **QUICK).fit(X[:41], y["kind"][:41])
    assert len(model.history_) == 2


def test_networks_are_saved_and_balancers_run(mixed, X, y, tmp_path):
    loaded = from_pretrained(save_pretrained(mixed.network_, tmp_path / "net"))
    inputs = {k: torch.from_numpy(v) for k, v in mixed.schema_.encode(X).items()}
    for name, prediction in loaded(inputs).items():
        torch.testing.assert_close(prediction, mixed.network_(inputs)[name])
    balanced = MultiTaskEstimator(network=SMALL, balancer="pcgrad", **QUICK).fit(X, y)
    assert len(balanced.history_) == 2


def test_kinds_can_be_said(X, y):
    kinds = {"kind": "numeric", "yes": BinaryTarget(pos_weight=4.0)}
    model = MultiTaskEstimator(kinds, network=SMALL, **QUICK).fit(X, y)
    assert isinstance(model.tasks_["kind"], NumericTarget)
    assert model.tasks_["yes"].pos_weight == 4.0
    for wrong, error in (
        ({"kinds": "numeric"}, UnknownNameError),
        (["numeric"], ArgumentError),
        ("numbers", UnknownNameError),
        ({"kind": "binary"}, LabelError),
    ):
        with pytest.raises(error):
            MultiTaskEstimator(wrong, network=SMALL, **QUICK).fit(X, y)


def test_targets_may_share_names_with_features(X):
    model = MultiTaskRegressor(SMALL, **QUICK).fit(X, X["code"].rename("a"))
    assert model.tasks_["a"].column == "target a"
    assert model.predict(X).shape == (N,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "multi_tab"}, r"network.*Did you mean multitab"),
        ({"balancer": "pcgrat"}, r"balancer.*Did you mean pcgrad"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"patience": 0}, "patience"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"categorical_features": ["cty"]}, "Did you mean city"),
    ],
)
def test_bad_parameters_are_named_at_fit(change, message, X, y):
    with pytest.raises(ValueError, match=message):
        MultiTaskRegressor(**QUICK).set_params(**change).fit(X, y[["size"]])


def test_bad_data_is_named(X, y, mixed):
    classifier = MultiTaskClassifier(SMALL, **QUICK)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier.fit(X, y["kind"][:-1])
    with pytest.raises(LabelError, match=r"'kind'.*at least two classes"):
        classifier.fit(X, y.assign(kind=1)[["yes", "kind"]])
    with pytest.raises(LabelError, match=r"'size'.*at least one"):
        MultiTaskEstimator("numeric", network=SMALL, **QUICK).fit(
            X, y.assign(size=np.nan)[["kind", "size"]]
        )
    with pytest.raises(ValueError, match="finite"):
        classifier.fit(X.assign(a=np.inf), y["kind"])
    with pytest.raises(ValueError, match="feature names should match"):
        mixed.predict(X.rename(columns={"a": "b"}))
    with pytest.raises(ValueError, match="hold 3 tasks"):
        mixed.score(X, y.to_numpy()[:, :2])
