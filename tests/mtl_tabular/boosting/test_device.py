"""`device`: handed to every ensemble, refused where it is not there, forgotten where it was."""

import numpy as np
import pandas as pd
import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting import BoostedTrees, RMTGBRegressor
from mtl_tabular.boosting.device import check_device, present_device
from mtl_tabular.boosting.model_file import single_of
from mtl_tabular.boosting.settings import Settings
from mtl_tabular.boosting.stacked import StackedRMTGB
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.tasks import NumericTarget

SMALL = {"shared_rounds": 3, "group_rounds": 3, "task_rounds": 2, "early_stopping": False}


def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 2))
    return X, X[:, 0], np.arange(120) % 3


def trees(**options):
    X, y, _ = rows()
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(y=y)
    tasks = {"y": NumericTarget().fit("y", frame["y"])}
    schema = TableSchema.fit(frame[["a", "b"]])
    return BoostedTrees(tasks, schema=schema, rounds=3, **options), frame


@pytest.fixture
def gpus(monkeypatch):
    """Pretend to have so many."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize("device", ["gpu", "CUDA", "cuda:", "cuda:x", "tpu"])
def test_other_words_are_refused(device):
    with pytest.raises(ArgumentError, match="device must be cpu, cuda or cuda:<number>"):
        check_device(device)


def test_only_what_is_there(gpus):
    gpus(1)
    assert present_device("cuda") == "cuda"
    assert present_device("cuda:0") == "cuda:0"
    assert present_device("cuda:1") == "cpu"
    with pytest.raises(ArgumentError, match="cuda:1, but 1 GPUs"):
        check_device("cuda:1")


def test_an_xgboost_without_cuda_has_no_gpu(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setattr("xgboost.build_info", lambda: {"USE_CUDA": False})
    with pytest.raises(ArgumentError, match="built without CUDA"):
        check_device("cuda")


def test_training_without_the_gpu_is_refused(gpus):
    gpus(0)
    X, y, task = rows()
    with pytest.raises(ArgumentError, match="device must be cpu where there is no such GPU"):
        RMTGBRegressor(**SMALL, device="cuda").fit(X, y, task=task)
    model, frame = trees(device="cuda:3")
    with pytest.raises(ArgumentError, match="found 'cuda:3, but 0 GPUs'"):
        model.fit(frame)


def test_every_ensemble_gets_the_device(gpus):
    gpus(2)
    model = RMTGBRegressor(device="cuda:1")
    found = Settings.of(model).trees(0, np.array([5, 5]), 1)
    sets = [found["shared"], *found["grouped"], *found["own"]]
    assert [parameters["device"] for parameters in sets] == ["cuda:1"] * len(sets)
    boosted, _ = trees(device="cuda:1")
    assert boosted.parameters["device"] == "cuda:1"
    stacked = StackedRMTGB(boosted.tasks, schema=boosted.schema, estimator=model)
    assert single_of(stacked).parameters["device"] == "cuda:1"
    assert single_of(boosted).parameters["device"] == "cuda:1"


def test_a_model_of_another_machine_predicts_here(gpus, tmp_path):
    X, y, task = rows()
    model = RMTGBRegressor(**SMALL).fit(X, y, task=task)
    model.device = "cuda"
    model.save(tmp_path / "model.json")
    gpus(0)
    loaded = RMTGBRegressor.load(tmp_path / "model.json")
    assert loaded.device == "cuda"
    np.testing.assert_array_equal(loaded.predict(X, task), model.predict(X, task))


def test_trees_of_another_machine_predict_here(gpus, tmp_path):
    model, frame = trees()
    model.fit(frame).parameters["device"] = "cuda"
    model.save(tmp_path / "model.json")
    gpus(0)
    loaded = BoostedTrees.load(tmp_path / "model.json")
    found, expected = loaded.predict(frame), model.predict(frame)
    np.testing.assert_array_equal(found["y"], expected["y"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_the_same_model():
    X, y, task = rows()
    here, there = (
        RMTGBRegressor(**SMALL, device=device, random_state=0).fit(X, y, task=task).predict(X, task)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(here, there, atol=1e-3)
