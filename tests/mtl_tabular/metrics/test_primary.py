import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from mtl_tabular.metrics.primary import primary_score
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget


def test_area_under_the_curve_of_logits():
    torch.manual_seed(0)
    logits, target = torch.randn(40, 1), torch.randint(2, (40,)).float()
    expected = roc_auc_score(target.numpy(), logits.numpy()[:, 0])
    assert primary_score(BinaryTarget(), logits, target) == pytest.approx(expected)


def test_explained_variance_ignores_a_constant_offset():
    target = torch.tensor([1.0, 2.0, 4.0])
    task = NumericTarget(mean=2.0, std=0.5)
    assert primary_score(task, (target[:, None] - 2) / 0.5 + 7, target) == pytest.approx(1.0)


def test_undefined_scores_are_nan():
    one = torch.zeros(3)
    assert math.isnan(primary_score(BinaryTarget(), torch.randn(3, 1), one))
    assert math.isnan(primary_score(BinaryTarget(), torch.randn(0, 1), one[:0]))
    task = MulticlassTarget(classes=("a", "b", "c"))
    assert primary_score(task, torch.eye(3), torch.arange(3)) == 1.0
