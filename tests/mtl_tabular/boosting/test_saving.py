import json

import numpy as np
import pandas as pd
import pytest

from mtl_core.errors import ArgumentError, CheckpointWriteError
from mtl_tabular.boosting import RMTGBClassifier, RMTGBRegressor

OPTIONS = {"shared_rounds": 6, "group_rounds": 6, "task_rounds": 6, "random_state": 0}


def data(seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(200, 3)), columns=list("abc"))
    X.iloc[::7, 1] = np.nan
    return X, X.a * 2 + rng.normal(size=200), np.repeat(["u", "v", "w", "x"], 50)


@pytest.mark.parametrize("schedule", ["sequential", "interleaved", "auto"])
@pytest.mark.parametrize("count", [0, 2, 3])
def test_a_loaded_model_is_the_saved_one(tmp_path, count, schedule):
    X, y, task = data()
    if count:
        y = pd.qcut(y, count, labels=list("zyx")[:count]).astype(str)
    kind = RMTGBClassifier if count else RMTGBRegressor
    model = kind(**OPTIONS, schedule=schedule, callbacks=[lambda told: None])
    model.fit(X, y, task=task)
    model.save(tmp_path / "model.json")
    loaded = kind.load(tmp_path / "model.json")
    np.testing.assert_array_equal(loaded.predict(X, task), model.predict(X, task))
    if count:
        np.testing.assert_array_equal(loaded.predict_proba(X, task), model.predict_proba(X, task))
        assert loaded.classes_.tolist() == model.classes_.tolist()
    assert loaded.get_params() == model.get_params() | {"callbacks": None}
    pd.testing.assert_frame_equal(loaded.task_report_, model.task_report_, check_index_type=False)
    stages = list(zip(loaded.staged_predict(X, task), model.staged_predict(X, task), strict=True))
    np.testing.assert_array_equal(*stages[-1])
    assert loaded.chosen_ == model.chosen_


def test_training_goes_on_from_a_file(tmp_path):
    X, y, task = data()
    options = OPTIONS | {"early_stopping": False, "warm_start": True}
    RMTGBRegressor(**options | {"task_rounds": 2}).fit(X, y, task=task).save(tmp_path / "m.json")
    loaded = RMTGBRegressor.load(tmp_path / "m.json").set_params(task_rounds=6)
    whole = RMTGBRegressor(**options).fit(X, y, task=task)
    np.testing.assert_allclose(
        loaded.fit(X, y, task=task).predict(X, task), whole.predict(X, task), atol=1e-5
    )


def test_the_file_is_one_json_of_plain_data(tmp_path):
    X, y, task = data()
    RMTGBRegressor(**OPTIONS).fit(X, y, task=task).save(tmp_path / "m.json")
    state = json.loads((tmp_path / "m.json").read_text())
    assert state["tasks"]["values"] == ["u", "v", "w", "x"]
    assert state["parameters"]["group_rounds"] == 6


def test_files_of_others_are_refused(tmp_path):
    X, y, task = data()
    path = tmp_path / "m.json"
    RMTGBRegressor(**OPTIONS).fit(X, y, task=task).save(path)
    with pytest.raises(ArgumentError, match="a file of RMTGBClassifier"):
        RMTGBClassifier.load(path)
    path.write_text("[]")
    with pytest.raises(ArgumentError, match="a file of RMTGBRegressor"):
        RMTGBRegressor.load(path)
    model = RMTGBRegressor(**OPTIONS).fit(X, y, task=task)
    with pytest.raises(CheckpointWriteError):
        model.save(tmp_path)  # a folder
