"""Two classes."""

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics import MetricCollection

from mtl_core.errors import ArgumentError, LabelError
from mtl_tabular.tasks import BinaryTarget


def fitted(values, **options):
    return BinaryTarget(**options).fit("t", pd.Series(values))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([1, 0, 1], ("0", "1")),
        ([1.0, 0.0, None], ("0", "1")),
        ([10, 9, 9], ("9", "10")),
        ([True, False, None], ("False", "True")),
        (["yes", "no", None], ("no", "yes")),
        ([0.5, -0.5], ("-0.5", "0.5")),
    ],
)
def test_classes_come_in_order(values, classes):
    assert fitted(values).classes == classes


def test_given_classes_decide_which_is_positive():
    task = fitted(["yes", "no"], classes=("yes", "no"))
    assert task.encode("t", pd.Series(["no", "yes", None]))[0].tolist() == [1.0, 0.0, 0.0]
    assert task.decode(torch.tensor([[0.9], [0.1]])).tolist() == ["no", "yes"]


def test_decoding_inverts_encoding():
    values = pd.Series(["b", "a", "b"])
    task = fitted(values)
    targets, _ = task.encode("t", values)
    assert task.decode(torch.from_numpy(targets)[:, None]).tolist() == values.tolist()


@pytest.mark.parametrize("values", [[1, 1], [1, 2, 3]])
def test_other_counts_of_classes_are_refused(values):
    with pytest.raises(LabelError, match="two classes"):
        fitted(values)


def test_unseen_and_infinite_labels_are_named():
    with pytest.raises(LabelError, match=r"'t'.*\(0, 1\).*'7'.*rows 2"):
        fitted([0, 1]).encode("t", pd.Series([0, 1, 7]))
    with pytest.raises(LabelError, match="finite"):
        fitted([0.0, np.inf])


def test_check_refuses_other_numbers():
    with pytest.raises(LabelError, match="0 or 1"):
        BinaryTarget().check(torch.tensor([0.0, 0.5]))


def test_positive_weight_scales_the_loss_of_positives():
    logits, target = torch.randn(6, 1), torch.tensor([0.0, 1, 0, 1, 1, 0])
    valid = torch.ones(6).bool()
    plain = BinaryTarget().element_loss(logits, target, valid)
    heavy = BinaryTarget(pos_weight=3.0).element_loss(logits, target, valid)
    torch.testing.assert_close(heavy, plain * (1 + 2 * target))


def test_scores_of_a_perfect_and_of_a_constant_classifier():
    task = fitted([0, 1])
    target = torch.tensor([0.0, 1, 0, 1])
    for logits, wanted in ((20 * (target - 0.5), 1.0), (torch.zeros(4), 0.5)):
        metrics = MetricCollection(dict(task.metrics()))
        task.update(metrics, logits[:, None], target, torch.ones(4).bool())
        found = metrics.compute()
        0.0 if wanted == 1 else np.log(2)
        assert float(found["auroc"]) == wanted
        assert float(found["log_loss"]) == pytest.approx(
            0.0 if wanted == 1 else np.log(2), abs=1e-4
        )


def test_arguments_are_checked():
    with pytest.raises(ArgumentError, match="classes"):
        BinaryTarget(classes=("a", "a"))
    with pytest.raises(ArgumentError, match="pos_weight"):
        BinaryTarget(pos_weight=0.0)


def test_readout_names_the_negative_class_first():
    found = BinaryTarget(classes=("no", "yes")).readout()
    assert (found["kind"], found["classes"], found["threshold"]) == ("binary", ["no", "yes"], 0.5)
