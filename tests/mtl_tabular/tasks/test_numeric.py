"""Numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics import MetricCollection

from mtl_core.errors import ArgumentError, LabelError
from mtl_tabular.tasks import NumericTarget

VALUES = pd.Series([10.0, 20.0, np.nan, 60.0])


def test_mean_and_spread_are_of_labelled_rows():
    task = NumericTarget().fit("t", VALUES)
    assert (task.mean, task.rows) == (30.0, 3)
    assert task.std == pytest.approx(np.std([10, 20, 60]))


@pytest.mark.parametrize("given", [{"standardize": False}, {"mean": 1.0}, {"std": 7.0}])
def test_given_units_stay(given):
    task = NumericTarget(**given).fit("t", VALUES)
    assert (task.mean, task.std) == (given.get("mean", 0.0), given.get("std", 1.0))


def test_loss_and_scores_do_not_depend_on_the_unit():
    """The loss is of standardised values; metrics are in the target's own unit."""
    targets = torch.tensor([10.0, 20.0, 60.0])
    prediction, valid = torch.randn(3, 1), NumericTarget().valid(targets)
    losses, errors = [], []
    for scale in (1.0, 1000.0):
        task = NumericTarget().fit("t", VALUES * scale)
        losses.append(task.element_loss(prediction, targets * scale, valid))
        metrics = MetricCollection(dict(task.metrics()))
        task.update(metrics, prediction, targets * scale, valid)
        errors.append(float(metrics.compute()["rmse"]))
    torch.testing.assert_close(*losses)
    assert errors[1] == pytest.approx(1000 * errors[0], rel=1e-4)


def test_activation_gives_back_the_unit():
    task = NumericTarget().fit("t", VALUES)
    standardised = torch.tensor([[-1.0], [0.0]])
    np.testing.assert_allclose(
        task.decode(task.activate(standardised)), [task.mean - task.std, task.mean], rtol=1e-6
    )


def test_constant_targets_warn_and_keep_a_spread_of_one():
    with pytest.warns(UserWarning, match="'t' are all 4"):
        task = NumericTarget().fit("t", pd.Series([4, 4, 4]))
    assert (task.mean, task.std) == (4.0, 1.0)


@pytest.mark.parametrize("value", ["dear", np.inf, -np.inf])
def test_other_values_are_named(value):
    with pytest.raises(LabelError, match=rf"'t'.*finite numbers.*{value}.*rows \[1\]"):
        NumericTarget().fit("t", pd.Series([1.0, value], dtype=object))


@pytest.mark.parametrize("value", [1e39, -1e39])
def test_numbers_beyond_float32_are_named(value):
    with pytest.raises(LabelError, match=r"'t'.*finite numbers.*e\+39"):
        NumericTarget().encode("t", pd.Series([1.0, value]))


def test_dates_are_no_numbers():
    with pytest.raises(LabelError, match=r"'t'.*finite numbers.*datetime64"):
        NumericTarget().fit("t", pd.Series(pd.to_datetime(["2020-01-01"])))


def test_mean_and_spread_have_the_precision_of_the_column():
    """float32 would make one number of all three."""
    with pytest.warns(UserWarning, match=r"'t' lie around 1e\+09.*Subtract a constant"):
        task = NumericTarget().fit("t", pd.Series([1e9 - 1, 1e9, 1e9 + 1]))
    assert (task.mean, task.std) == (1e9, pytest.approx(np.sqrt(2 / 3), rel=1e-9))


@pytest.mark.parametrize("mean", [0.0, 1998.0, -9000.0, 1e5])
def test_ordinary_offsets_do_not_warn(mean):
    NumericTarget().fit("t", pd.Series([mean - 1, mean + 1]))


def test_targets_in_tiny_units_are_not_constant():
    task = NumericTarget().fit("t", pd.Series([1e-20, 3e-20]))
    assert (task.mean, task.std) == (pytest.approx(2e-20), pytest.approx(1e-20))


@pytest.mark.parametrize("offset", [0.0, 2000.0, -8000.0])
def test_scores_keep_their_digits_far_from_zero(offset):
    """All metrics against NumPy in float64, over several updates."""
    rng = np.random.default_rng(0)
    targets = (offset + rng.normal(size=4000)).astype(np.float32)
    task = NumericTarget().fit("t", pd.Series(targets))
    guess = (targets.astype(np.float64) - task.mean) / task.std * 0.7 + rng.normal(size=4000) * 0.4
    metrics = MetricCollection(dict(task.metrics()))
    for rows in np.split(np.arange(4000), 8):
        target = torch.tensor(targets[rows])
        prediction = torch.tensor(guess[rows, None]).float()
        task.update(metrics, prediction, target, task.valid(target))
    error = guess * task.std + task.mean - targets.astype(np.float64)
    spread = targets.astype(np.float64).var()
    expected = {
        "rmse": np.sqrt((error**2).mean()),
        "mae": np.abs(error).mean(),
        "r2": 1 - (error**2).mean() / spread,
        "explained_variance": 1 - error.var() / spread,
    }
    assert {n: float(v) for n, v in metrics.compute().items()} == pytest.approx(expected, rel=1e-4)


def test_numbers_written_as_text_are_numbers():
    assert NumericTarget().encode("t", pd.Series(["1.5", None]))[0].tolist() == [1.5, 0.0]


def test_one_number_a_row():
    with pytest.raises(ArgumentError, match="dim"):
        NumericTarget(dim=2)


def test_readout_is_in_the_unit_of_the_column():
    found = NumericTarget(mean=3.0, std=2.0).readout()
    assert (found["kind"], found["unit"]) == ("numeric", "target")
