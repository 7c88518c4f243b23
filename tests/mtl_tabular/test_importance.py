from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import Features
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.estimators import MultiTaskEstimator
from mtl_tabular.importance import permutation_importance
from mtl_tabular.networks import SharedBottom, TableNetwork
from mtl_tabular.tasks import BinaryTarget, NumericTarget


class Known(TableNetwork):
    """Predicts `total` from a and b exactly, and `sign` from the category alone."""

    def __init__(self, tasks, *, schema):
        super().__init__(tasks, schema)
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, inputs, tags=None):
        return Features([torch.cat([inputs["categorical"].float(), inputs["numeric"]], 1)])

    def decode(self, features, task):
        columns = features.maps[0] * self.scale
        return columns[:, :1] - 2.5 if task == "sign" else columns[:, 1:2] + 2 * columns[:, 2:3]

    def decoder_modules(self, task):
        return []


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=400),
            "b": rng.normal(size=400),
            "idle": rng.normal(size=400),
            "c": rng.choice(["u", "v"], 400),
        }
    )
    schema = TableSchema.fit(frame)
    encoded = schema.encode(frame)["numeric"]
    frame["total"] = encoded[:, 0] + 2 * encoded[:, 1]
    frame["sign"] = np.where(frame["c"] == "v", 1, 0)
    frame.loc[:99, "total"] = np.nan
    tasks = {
        "total": NumericTarget().fit("total", frame["total"]),
        "sign": BinaryTarget().fit("sign", frame["sign"]),
    }
    tasks["total"] = NumericTarget(rows=300)  # the network predicts the number itself
    return Known(tasks, schema=schema), frame


def test_known_importances(table):
    network, frame = table
    network.train()
    result = permutation_importance(network, frame, frame, repeats=8, batch_size=170)
    assert network.training
    total = result[result["task"] == "total"].set_index("feature")
    assert total.index.tolist()[:2] == ["b", "a"]
    assert total["baseline"].iloc[0] == pytest.approx(1.0)
    # Shuffling a term of a sum of independent ones costs twice its share of the variance.
    assert total.loc["b", "importance"] == pytest.approx(2 * 4 / 5, abs=0.15)
    assert total.loc["a", "importance"] == pytest.approx(2 * 1 / 5, abs=0.15)
    assert (total.loc[["idle", "c"], "importance"] == 0).all()
    sign = result[result["task"] == "sign"].set_index("feature")
    assert sign.loc["c", "importance"] == pytest.approx(0.5, abs=0.1)
    assert (sign.drop(index="c")["importance"] == 0).all()
    assert (
        (result["low"] <= result["importance"]) & (result["importance"] <= result["high"])
    ).all()


def test_seed_and_batches_and_choice_of_tasks(table):
    network, frame = table
    run = partial(permutation_importance, network, frame, frame, repeats=3)
    pd.testing.assert_frame_equal(run(batch_size=64), run(batch_size=9999))
    assert not run(seed=1).equals(run(seed=2))
    assert set(run(tasks=["sign"])["task"]) == {"sign"}


def test_estimators_take_what_they_were_fitted_on(table):
    _, frame = table
    X, y = frame[["a", "b", "idle", "c"]], frame[["total", "sign"]]
    small = partial(SharedBottom, token_width=4, shared=(16,), tower=(8,), dropout=0.0)
    model = MultiTaskEstimator(network=small, max_epochs=8, learning_rate=0.03, random_state=0)
    result = permutation_importance(model.fit(X, y), X, y, repeats=2)
    assert result.groupby("task", sort=False)["feature"].first().to_dict() == {
        "total": "b",
        "sign": "c",
    }


def test_mistakes_are_named(table):
    network, frame = table
    for wrong in ({"repeats": 1}, {"confidence": 1.0}, {"batch_size": 0}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            permutation_importance(network, frame, frame, **wrong)
    with pytest.raises(ArgumentError, match="labels of task 'total'"):
        permutation_importance(network, frame, frame.drop(columns="total"))
