import pytest
import torch
from torch.nn.functional import cross_entropy

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks import reduce_loss
from mtl_vision.tasks import HumanParts, SemanticSegmentation


def test_loss_is_cross_entropy_over_valid_pixels():
    task = SemanticSegmentation(num_classes=4)
    raw = torch.randn(2, 4, 5, 6)
    target = torch.randint(4, (2, 5, 6))
    target[:, 0] = 255
    valid = task.valid(target)
    total, count = reduce_loss(task.element_loss(raw, target.byte(), valid), valid)
    expected = cross_entropy(raw, target, ignore_index=255)
    torch.testing.assert_close(total.sum() / count.sum(), expected)


def test_activated_predictions_are_probabilities():
    activated = SemanticSegmentation(num_classes=4).activate(torch.randn(2, 4, 3, 3))
    torch.testing.assert_close(activated.sum(1), torch.ones(2, 3, 3))


@pytest.mark.parametrize("value", [4, 200, -1])
def test_class_out_of_range_is_named(value):
    task = SemanticSegmentation(num_classes=4)
    target = torch.zeros(1, 3, 3, dtype=torch.int64)
    target[0, 1, 1] = value
    with pytest.raises(LabelError, match=rf"0\.\.3 or be 255 .*{value}"):
        task.check(target)


def test_real_numbers_are_no_classes():
    with pytest.raises(LabelError, match="integers"):
        SemanticSegmentation(num_classes=4).check(torch.zeros(1, 3, 3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_classes": 1},
        {"num_classes": 256},
        {"num_classes": 3, "class_names": ("a", "b")},
        {"num_classes": 3, "palette": ((0, 0, 0),)},
        {"num_classes": 2, "palette": ((0, 0, 0), (0, 0, 256))},
        {"num_classes": 2, "palette": ((0, 0, 0), (0, 0))},
    ],
)
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(ArgumentError):
        SemanticSegmentation(**wrong)


def test_protocols_differ_in_classes_that_never_occur():
    target = torch.tensor([[[0, 1]]])
    perfect = torch.nn.functional.one_hot(target, 4).movedim(-1, 1).float()
    for protocol, expected in (("survey", 0.5), ("atrc", 0.5), ("libmtl", 1.0)):
        task = SemanticSegmentation(num_classes=4, protocol=protocol)
        metric = task.metrics()["miou"]
        metric.update(perfect, target, valid=task.valid(target))
        assert metric.compute() == expected


@pytest.mark.parametrize("protocol", ["survey", "atrc"])
def test_images_without_people_do_not_count(protocol):
    task = HumanParts(protocol=protocol)
    target = torch.zeros(3, 4, 4, dtype=torch.uint8)
    target[0, 1, 1] = 2
    target[0, 3] = 255
    target[2] = 255
    valid = task.valid(target)
    assert valid[0].sum() == 12
    assert not valid[1:].any()
    # Whatever is predicted there, the score is that of the first image.
    raw = torch.randn(3, 7, 4, 4)
    both, first = task.metrics()["miou"], task.metrics()["miou"]
    both.update(task.activate(raw), target, valid=valid)
    first.update(task.activate(raw[:1]), target[:1], valid=valid[:1])
    assert both.compute() == first.compute()


def test_human_parts_has_its_classes_ready():
    assert HumanParts().out_channels == len(HumanParts().class_names) == 7


def test_ignored_pixels_are_no_people():
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    target[0, 0] = 255
    assert not HumanParts().valid(target).any()


def test_readout_has_a_name_and_a_colour_for_every_class():
    found = SemanticSegmentation(num_classes=4).readout()
    assert (found["kind"], found["classes"]) == ("segmentation", ["0", "1", "2", "3"])
    assert len({tuple(colour) for colour in found["palette"]}) == 4
    own = SemanticSegmentation(num_classes=2, palette=((0, 0, 0), (1, 2, 3))).readout()
    assert own["palette"] == [[0, 0, 0], [1, 2, 3]]
    assert HumanParts().readout()["classes"][1] == "head"
