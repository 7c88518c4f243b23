import pytest
import torch
from torchmetrics import MetricCollection

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks import Regression


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_perfect_prediction_costs_nothing(loss):
    task = Regression(loss=loss, mean=3.0, std=2.0)
    target = torch.randn(5)
    valid = task.valid(target)
    scaled = ((target - 3) / 2)[:, None]
    assert task.element_loss(scaled, target, valid).abs().max() == 0
    torch.testing.assert_close(task.activate(scaled)[:, 0], target)


def test_loss_does_not_depend_on_the_unit():
    target, prediction = torch.randn(5), torch.randn(5, 1)
    metres, millimetres = Regression(mean=1, std=2), Regression(mean=1000, std=2000)
    valid = metres.valid(target)
    torch.testing.assert_close(
        metres.element_loss(prediction, target, valid),
        millimetres.element_loss(prediction, target * 1000, valid),
    )


def test_metrics_are_in_the_target_unit():
    task = Regression(mean=10.0, std=5.0)
    metrics = MetricCollection(task.metrics())
    target = torch.tensor([10.0, 20.0])
    task.update(metrics, torch.zeros(2, 1), target, task.valid(target))
    found = metrics.compute()
    assert found["mae"] == 5.0
    torch.testing.assert_close(found["rmse"], torch.tensor(50.0).sqrt())


def test_vectors():
    task = Regression(dim=3)
    target = torch.randn(4, 3)
    assert task.element_loss(torch.zeros(4, 3), target, task.valid(target)).shape == (4, 3)
    task.check(target)
    with pytest.raises(LabelError, match=r"have 3 value\(s\) a sample"):
        task.check(torch.randn(4, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_targets_are_finite(value):
    with pytest.raises(LabelError, match="be finite"):
        Regression().check(torch.tensor([1.0, value]))


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="std must be positive, found 0"):
        Regression(std=0)
    with pytest.raises(ArgumentError, match="dim must be at least 1"):
        Regression(dim=0)


def test_readout_says_that_numbers_are_in_the_unit_of_the_target():
    found = Regression(dim=2, mean=3.0, std=2.0).readout()
    assert found == {"kind": "regression", "activation": "destandardised", "unit": "target"}
