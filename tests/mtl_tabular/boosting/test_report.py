import numpy as np
import pandas as pd
import pytest

from mtl_tabular.boosting import RMTGBRegressor
from mtl_tabular.boosting.report import block_gains, plot_task_scores, task_gains, task_report


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    task = np.repeat(list("abcd"), 80)
    X = pd.DataFrame(rng.normal(size=(320, 3)), columns=["common", "turned", "private"])
    y = X.common + np.where(task == "d", -2, 2) * X.turned
    y += np.where(task == "b", 3, 0) * X.private
    return RMTGBRegressor(
        shared_rounds=30, group_rounds=60, task_rounds=60, max_depth=2, random_state=0
    ).fit(X, y, task=task)


def test_report_says_which_block_helps_whom(model):
    report = model.task_report_
    assert report.index.tolist() == list("abcd")
    assert (report["rows"] + report["held_out"]).tolist() == [80] * 4
    assert report["outlier_score"].idxmax() == "d"
    assert (report["loss_groups"] - report["loss_own"]).idxmax() == "b"
    assert set(report["helps"]) <= {"shared", "groups", "own"}
    losses = report[["loss_intercept", "loss_shared", "loss_groups", "loss_own"]]
    assert (losses["loss_own"] < losses["loss_intercept"]).all()
    weighted = np.average(losses["loss_own"], weights=report["held_out"])
    assert weighted == pytest.approx(model.held_out_losses_.iloc[0], rel=1e-4)
    pd.testing.assert_series_equal(model.outlier_score_, report["outlier_score"])


def test_without_held_out_rows_nothing_is_claimed(model):
    report = task_report(model.model_, model.loss_, model.tasks_, None)
    assert report["loss_own"].isna().all()
    assert (report["helps"] == "").all()
    assert (report["held_out"] == 0).all()


def test_gains_by_block_and_task(model):
    names = list(model.feature_names_in_)
    blocks = block_gains(model.model_, names)
    assert list(blocks.columns) == ["shared", "group_0", "group_1", "own"]
    assert blocks.to_numpy().sum() == pytest.approx(1)
    assert model.feature_importances_.sum() == pytest.approx(1)
    tasks = task_gains(model.model_, names, model.tasks_)
    np.testing.assert_allclose(tasks.sum(), 1)
    assert tasks.loc["private"].idxmax() == "b"
    pd.testing.assert_frame_equal(model.task_importances(), tasks)
    pd.testing.assert_frame_equal(model.block_importances(), blocks)


def test_plot_shows_every_task_once(model):
    ax = model.plot_task_scores()
    (dots,) = ax.collections
    heights = dots.get_offsets()[:, 1]
    assert sorted(model.outlier_score_) == heights.tolist()
    assert [t.get_text() for t in ax.get_xticklabels()][-1] == "d"
    assert plot_task_scores(model.task_report_, ax=ax) is ax
