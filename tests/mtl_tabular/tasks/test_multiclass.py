"""Several classes."""

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics import MetricCollection

from mtl_core.errors import ArgumentError, LabelError
from mtl_tabular.tasks import MulticlassTarget


def fitted(values, **options):
    return MulticlassTarget(**options).fit("t", pd.Series(values))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([10, 9, 2.5], ("2.5", "9", "10")),
        (["b", "a", "c", None], ("a", "b", "c")),
        (["x", 3, 1], ("1", "3", "x")),
        (pd.Categorical(["b", "a"], categories=["b", "a", "unused"]), ("a", "b")),
    ],
)
def test_classes_come_in_order(values, classes):
    task = fitted(values)
    assert task.classes == classes
    assert task.out_channels == len(classes)


def test_decoding_inverts_encoding():
    values = pd.Series(["b", "a", "c", "b"])
    task = fitted(values)
    targets, labelled = task.encode("t", values)
    assert (targets.dtype, labelled.all()) == (np.dtype("int64"), True)
    activated = torch.nn.functional.one_hot(torch.from_numpy(targets), 3).float()
    assert task.decode(activated).tolist() == values.tolist()


def test_integers_read_as_numbers_with_gaps_are_the_same_classes():
    task = fitted([1, 2, 3])
    assert task.encode("t", pd.Series([1.0, None, 3.0]))[0].tolist() == [0, 0, 2]
    assert task.encode("t", pd.Series(["1", "2", "3"]))[0].tolist() == [0, 1, 2]


def test_unseen_classes_are_named():
    with pytest.raises(LabelError, match=r"\(a, b\).*'z'.*rows 1"):
        fitted(["a", "b"]).encode("t", pd.Series(["a", "z"]))
    with pytest.raises(LabelError, match="two classes"):
        fitted(["a", "a"])
    with pytest.raises(LabelError, match="'c'"):
        fitted(["a", "c"], classes=("a", "b"))


def test_check_refuses_what_is_no_class():
    task = MulticlassTarget(classes=("a", "b"))
    for target, match in ((torch.tensor([2]), r"0\.\.1"), (torch.tensor([0.0]), "integers")):
        with pytest.raises(LabelError, match=match):
            task.check(target)


def test_activated_predictions_are_probabilities():
    task = MulticlassTarget(classes=("a", "b", "c"))
    probabilities = task.activate(torch.randn(5, 3))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))


def test_scores_of_a_perfect_classifier():
    task = MulticlassTarget(classes=("a", "b", "c"))
    target = torch.tensor([0, 1, 2, 1])
    metrics = MetricCollection(dict(task.metrics()))
    task.update(metrics, 30 * torch.eye(3)[target], target, torch.ones(4).bool())
    found = metrics.compute()
    for name in ("auroc", "average_precision", "accuracy", "recall", "f1"):
        assert float(found[name]) == pytest.approx(1.0), name


def test_arguments_are_checked():
    with pytest.raises(ArgumentError, match="classes"):
        MulticlassTarget(classes=("a",))
    with pytest.raises(ArgumentError, match="label_smoothing"):
        MulticlassTarget(label_smoothing=1.0)
    with pytest.raises(ArgumentError, match="fit the task"):
        _ = MulticlassTarget().out_channels


def test_readout_names_the_fitted_classes():
    found = MulticlassTarget(classes=("a", "b", "c")).readout()
    assert (found["kind"], found["classes"]) == ("multiclass", ["a", "b", "c"])
