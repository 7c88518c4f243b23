import pytest
import torch
from torchmetrics import MetricCollection

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks import MultiLabel, reduce_loss

TASK = MultiLabel(num_labels=2)


def test_unknown_labels_have_neither_loss_nor_gradient():
    logits = torch.randn(3, 2, requires_grad=True)
    target = torch.tensor([[1, -1], [0, 1], [-1, -1]])
    valid = TASK.valid(target)
    total, count = reduce_loss(TASK.element_loss(logits, target, valid), valid)
    assert count.tolist() == [1, 2, 0]
    total.sum().backward()
    assert (logits.grad == 0).tolist() == (target < 0).tolist()


def test_swapping_the_answer_flips_the_logit():
    logits, target = torch.randn(4, 2), torch.randint(0, 2, (4, 2))
    valid = TASK.valid(target)
    torch.testing.assert_close(
        TASK.element_loss(logits, target, valid), TASK.element_loss(-logits, 1 - target, valid)
    )


def test_metrics_leave_unknown_labels_out():
    target = torch.tensor([[1, 0], [0, -1], [1, 1]])
    right = torch.where(target == 1, 5.0, -5.0)
    for name, metric in TASK.metrics().items():
        metric.update(TASK.activate(right), target)
        assert metric.compute() == 1.0, name


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32])
def test_any_type_of_yes_and_no(dtype):
    target = torch.tensor([[1, 0], [0, 1]]).to(dtype)
    TASK.check(target)
    metrics = MetricCollection(TASK.metrics())
    logits = torch.where(target.bool(), 5.0, -5.0)
    TASK.update(metrics, logits, target, TASK.valid(target))
    assert metrics.compute() == {"f1": 1.0, "ap": 1.0}
    assert TASK.element_loss(logits, target, TASK.valid(target)).max() < 0.01


def test_bad_targets_and_arguments():
    with pytest.raises(LabelError, match=r"be 0, 1 or -1 \(unknown\), found \[2\]"):
        TASK.check(torch.tensor([[2, 0]]))
    with pytest.raises(ArgumentError, match="num_labels must be at least 2"):
        MultiLabel(num_labels=1)
    with pytest.raises(ArgumentError, match="class_names must hold 2 names"):
        MultiLabel(num_labels=2, class_names=("a",))


def test_readout_names_the_labels_and_the_threshold_of_the_metric():
    found = MultiLabel(num_labels=2, class_names=("wet", "dark")).readout()
    assert (found["kind"], found["classes"]) == ("multilabel", ["wet", "dark"])
    assert found["threshold"] == 0.5
