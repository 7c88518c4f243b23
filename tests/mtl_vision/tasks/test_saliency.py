import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from mtl_core.errors import ArgumentError
from mtl_core.tasks import reduce_loss
from mtl_vision.tasks import SaliencyDetection


def batch_loss(task, raw, target):
    valid = task.valid(target)
    total, count = reduce_loss(task.element_loss(raw, target, valid), valid)
    return total.sum() / count.sum()


@pytest.fixture
def target():
    held = (torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0)) > 0.7).long()
    held[0, :2] = 255
    return held


def test_survey_loss_is_the_closed_form(target):
    raw = torch.randn(2, 1, 5, 6)
    z, y = raw[:, 0][target != 255], target[target != 255]
    w = (y == 0).sum() / len(y)
    expected = (w * y * softplus(-z) + (1 - w) * (1 - y) * softplus(z)).mean()
    found = batch_loss(SaliencyDetection(protocol="survey"), raw, target)
    torch.testing.assert_close(found, expected)


def test_atrc_loss_is_weighted_cross_entropy_over_all_pixels(target):
    raw = torch.randn(2, 2, 5, 6)
    y = target[target != 255]
    share = (y == 0).sum() / len(y)
    weights = torch.stack([1 - share, share])
    per_pixel = cross_entropy(raw, target, weights, ignore_index=255, reduction="none")
    found = batch_loss(SaliencyDetection(protocol="atrc"), raw, target)
    torch.testing.assert_close(found, per_pixel.sum() / len(y))


def test_unlabelled_pixels_do_not_enter_the_balance(target):
    task = SaliencyDetection(protocol="survey")
    raw = torch.randn(2, 1, 5, 6)
    wide = torch.nn.functional.pad(target, (0, 4, 0, 4), value=255)
    torch.testing.assert_close(
        batch_loss(task, torch.nn.functional.pad(raw, (0, 4, 0, 4)), wide),
        batch_loss(task, raw, target),
    )


def test_pixels_masked_by_the_batch_do_not_enter_the_balance(target):
    """`valid` may exclude labelled pixels: the same as if they carried no label."""
    task = SaliencyDetection(protocol="survey")
    raw = torch.randn(2, 1, 5, 6)
    masked = task.valid(target)
    masked[1, :, :3] = False
    hidden = torch.where(masked, target, 255)
    torch.testing.assert_close(
        task.element_loss(raw, target, masked)[masked],
        task.element_loss(raw, hidden, task.valid(hidden))[masked],
    )


@pytest.mark.parametrize("protocol", ["survey", "atrc"])
@pytest.mark.parametrize("value", [0, 1])
def test_one_class_alone_gets_plain_cross_entropy(protocol, value):
    task = SaliencyDetection(protocol=protocol)
    raw = torch.randn(2, task.out_channels, 5, 6)
    target = torch.full((2, 5, 6), value)
    logit = raw[:, 0] if protocol == "survey" else raw[:, 1] - raw[:, 0]
    torch.testing.assert_close(
        batch_loss(task, raw, target), binary_cross_entropy_with_logits(logit, target.float())
    )


def test_activated_is_the_foreground_probability():
    raw = torch.randn(2, 2, 3, 3)
    two = SaliencyDetection(protocol="atrc").activate(raw)
    torch.testing.assert_close(two, raw.softmax(1)[:, 1])
    one = SaliencyDetection(protocol="survey").activate(raw[:, :1])
    torch.testing.assert_close(one, raw[:, 0].sigmoid())


def test_primary_by_protocol():
    assert SaliencyDetection(protocol="survey").primary == "miou"
    assert SaliencyDetection(protocol="atrc").primary == "maxf"
    parity = SaliencyDetection(protocol="atrc", double_sigmoid=True)
    assert parity.primary == "maxf_double_sigmoid"
    assert set(parity.metrics()) == {"maxf", "maxf_double_sigmoid"}
    with pytest.raises(ArgumentError, match="double_sigmoid"):
        SaliencyDetection(protocol="survey", double_sigmoid=True)


def test_half_precision_logits_are_subtracted_in_single_precision(target):
    task, raw = SaliencyDetection(protocol="atrc"), (8 + 4 * torch.randn(2, 2, 5, 6)).bfloat16()
    assert torch.equal(task.activate(raw), task.activate(raw.float()))
    assert batch_loss(task, raw, target) == batch_loss(task, raw.float(), target)


def test_readout_is_a_probability_with_a_threshold():
    found = SaliencyDetection().readout()
    assert (found["kind"], found["unit"], found["threshold"]) == ("saliency", "probability", 0.5)
