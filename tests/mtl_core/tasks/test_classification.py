import pytest
import torch

from mtl_core.errors import ArgumentError, LabelError
from mtl_core.tasks import Classification

TASK = Classification(num_classes=3)


def test_uniform_logits_cost_log_k():
    loss = TASK.element_loss(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), torch.ones(4).bool())
    torch.testing.assert_close(loss, torch.full((4,), 3.0).log())


def test_loss_ignores_a_common_shift_of_the_logits():
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    valid = torch.ones(4).bool()
    torch.testing.assert_close(
        TASK.element_loss(logits, target, valid), TASK.element_loss(logits + 5, target, valid)
    )


def test_half_precision_logits_are_scored_in_full():
    logits = torch.randn(4, 3).bfloat16()
    assert (
        TASK.element_loss(logits, torch.zeros(4).long(), torch.ones(4).bool()).dtype
        == torch.float32
    )


def test_activation_is_a_distribution():
    torch.testing.assert_close(TASK.activate(torch.randn(4, 3)).sum(1), torch.ones(4))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 3]), r"lie in 0..2, found \[3\]"),
        (torch.tensor([-1, 2]), r"found \[-1\]"),
        (torch.tensor([0.5]), "be integers"),
        (torch.tensor([True]), "be integers"),
    ],
)
def test_bad_targets(target, message):
    with pytest.raises(LabelError, match=message):
        TASK.check(target)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="num_classes must be at least 2, found 1"):
        Classification(num_classes=1)
    with pytest.raises(ArgumentError, match="class_names must hold 3 names"):
        Classification(num_classes=3, class_names=("a",))
    with pytest.raises(ArgumentError, match="label_smoothing"):
        Classification(num_classes=3, label_smoothing=1.0)


def test_readout_names_the_classes_of_probabilities_that_sum_to_one():
    found = Classification(num_classes=3, class_names=("a", "b", "c")).readout()
    assert (found["kind"], found["classes"]) == ("classification", ["a", "b", "c"])
    assert Classification(num_classes=2).readout()["classes"] == ["0", "1"]
