import pytest
import torch
from torch.nn.functional import softplus

from mtl_core.errors import LabelError, MTLError
from mtl_core.tasks import reduce_loss
from mtl_vision.tasks import BoundaryDetection


@pytest.mark.parametrize("protocol", ["survey", "atrc"])
@pytest.mark.parametrize("w", [0.95, 0.88])
def test_loss_is_the_closed_form(protocol, w):
    task = BoundaryDetection(protocol=protocol, positive_weight=w)
    raw, target = torch.randn(2, 1, 5, 6), torch.randint(2, (2, 5, 6))
    target[1, 2:] = 255
    valid = task.valid(target)
    total, count = reduce_loss(task.element_loss(raw, target, valid), valid)
    z, y = raw[:, 0][target != 255], target[target != 255]
    expected = (w * y * softplus(-z) + (1 - w) * (1 - y) * softplus(z)).mean()
    torch.testing.assert_close(total.sum() / count.sum(), expected)


def test_activated_is_a_probability():
    activated = BoundaryDetection().activate(torch.tensor([[[[0.0, 100.0]]]]))
    assert activated.tolist() == [[[0.5, 1.0]]]


def test_other_values_are_refused():
    target = torch.zeros(1, 3, 3, dtype=torch.uint8)
    target[0, 0, 0] = 254
    with pytest.raises(LabelError, match="254"):
        BoundaryDetection().check(target)


@pytest.mark.parametrize(
    "wrong", [{"positive_weight": 1.0}, {"max_distance": 0.0}, {"matching": "x"}]
)
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(MTLError, match=next(iter(wrong))):
        BoundaryDetection(**wrong)


def test_the_metric_follows_the_task():
    metric = BoundaryDetection(max_distance=0.011, matching="assignment").metrics()["odsf"]
    assert (metric.max_distance, metric.matching) == (0.011, "assignment")


def test_defaults_are_pascals():
    assert (BoundaryDetection().positive_weight, BoundaryDetection().max_distance) == (0.95, 0.0075)


def test_readout_is_a_probability_with_a_threshold():
    found = BoundaryDetection().readout()
    assert (found["kind"], found["unit"], found["threshold"]) == ("boundary", "probability", 0.5)
