import pytest
import torch
from torchmetrics import MetricCollection

from mtl_core.errors import UnknownNameError
from mtl_vision.metrics import MeanIoU, PixelAccuracy


def scores(labels, classes):
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).movedim(-1, 1).float()


def test_two_by_two_by_hand():
    # Class 0: 1 of 3 pixels in the union; class 1: 1 of 2; class 2: 1 of 1.
    predicted, target = [[[0, 1], [0, 2]]], torch.tensor([[[0, 1], [1, 2]]])
    everywhere = torch.ones_like(target, dtype=torch.bool)
    metric = MeanIoU(3)
    metric.update(scores(predicted, 3), target, everywhere)
    torch.testing.assert_close(metric.compute(), torch.tensor((1 / 2 + 1 / 2 + 1) / 3))
    accuracy = PixelAccuracy(3)
    accuracy.update(scores(predicted, 3), target, everywhere)
    assert accuracy.compute() == 0.75


def test_absent_classes():
    target = torch.tensor([[[0, 0], [1, 1]]])
    everywhere = torch.ones_like(target, dtype=torch.bool)
    for absent, expected in (("zero", 2 / 4), ("skip", 1.0)):
        metric = MeanIoU(4, absent=absent)
        metric.update(scores(target.tolist(), 4), target, everywhere)
        torch.testing.assert_close(metric.compute(), torch.tensor(expected))
    # A class that is predicted but never true is a mistake, not absent.
    metric = MeanIoU(4, absent="skip")
    metric.update(scores([[[0, 0], [1, 3]]], 4), target, everywhere)
    torch.testing.assert_close(metric.compute(), torch.tensor((1 + 1 / 2 + 0) / 3))


def test_counts_are_pooled_over_images_not_averaged():
    metric = MeanIoU(2)
    one = torch.ones(1, 1, 4, dtype=torch.bool)
    metric.update(scores([[[0, 0, 0, 1]]], 2), torch.tensor([[[0, 0, 0, 1]]]), one)
    metric.update(scores([[[0, 1, 1, 1]]], 2), torch.tensor([[[0, 0, 0, 0]]]), one)
    torch.testing.assert_close(metric.compute(), torch.tensor((4 / 7 + 1 / 4) / 2))


def test_one_confusion_matrix_serves_both():
    metrics = MetricCollection({"miou": MeanIoU(3), "accuracy": PixelAccuracy(3)})
    target = torch.tensor([[[0, 1], [1, 2]]])
    metrics.update(scores(target.tolist(), 3), target, valid=target < 2)
    assert len(metrics.compute_groups) == 1
    assert metrics.compute()["accuracy"] == 1


def test_unknown_treatment_of_absent_classes_is_refused():
    with pytest.raises(UnknownNameError, match=r"absent.*'skp'.*skip"):
        MeanIoU(3, absent="skp")


def test_eight_bit_labels_do_not_overflow():
    target = torch.tensor([[[30, 39], [20, 0]]], dtype=torch.uint8)
    metric = MeanIoU(40, absent="skip")
    metric.update(scores(target.long().tolist(), 40), target, torch.ones_like(target) > 0)
    assert metric.compute() == 1


def test_higher_is_better():
    assert MeanIoU(2).higher_is_better is PixelAccuracy(2).higher_is_better is True
