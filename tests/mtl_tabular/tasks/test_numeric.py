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


def test_numbers_written_as_text_are_numbers():
    assert NumericTarget().encode("t", pd.Series(["1.5", None]))[0].tolist() == [1.5, 0.0]


def test_one_number_a_row():
    with pytest.raises(ArgumentError, match="dim"):
        NumericTarget(dim=2)
