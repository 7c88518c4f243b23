"""Metrics equal scikit-learn's, also in pieces, and are NaN where labels say nothing."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    explained_variance_score,
    log_loss,
    roc_auc_score,
)

from mtl_tabular.metrics import AreaUnderROC, AveragePrecision, LogLoss, VarianceExplained


def scores(classes, rows=300, *, ties=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (rows,), generator=generator)
    logits = torch.randn(rows, classes, generator=generator)
    logits[torch.arange(rows), target] += 1.0
    if ties:
        logits = logits.round()
    return logits.softmax(1), target


def value(metric, *columns, pieces=1):
    for piece in zip(*(torch.tensor_split(c, pieces) for c in columns), strict=True):
        metric.update(*piece)
    return float(metric.compute())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_area_under_roc_is_that_of_scikit_learn(classes, ties):
    p, y = scores(classes, ties=ties)
    wanted = roc_auc_score(y, p[:, 1]) if classes == 2 else roc_auc_score(y, p, multi_class="ovr")
    assert value(AreaUnderROC(classes), p, y) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_average_precision_is_that_of_scikit_learn(classes, ties):
    p, y = scores(classes, ties=ties)
    columns = [1] if classes == 2 else range(classes)
    wanted = np.mean([average_precision_score(y == k, p[:, k]) for k in columns])
    assert value(AveragePrecision(classes), p, y) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_log_loss_is_that_of_scikit_learn(classes):
    p, y = scores(classes)
    wanted = log_loss(y, p.double() / p.double().sum(1, keepdim=True), labels=list(range(classes)))
    assert value(LogLoss(), p, y) == pytest.approx(wanted, rel=1e-5)


def test_explained_variance_is_that_of_scikit_learn():
    y = torch.randn(200) * 3 + 50
    p = y + torch.randn(200)
    assert value(VarianceExplained(), p, y) == pytest.approx(
        explained_variance_score(y, p), abs=1e-4
    )
    assert value(VarianceExplained(), p + 7, y) == pytest.approx(
        explained_variance_score(y, p), abs=1e-4
    )


@pytest.mark.parametrize("metric", [AreaUnderROC, AveragePrecision])
def test_pieces_change_nothing(metric):
    p, y = scores(3)
    assert value(metric(3), p, y, pieces=7) == pytest.approx(value(metric(3), p, y), abs=1e-6)
    assert value(LogLoss(), p, y, pieces=7) == pytest.approx(value(LogLoss(), p, y), abs=1e-6)


@pytest.mark.parametrize("metric", [AreaUnderROC, AveragePrecision])
def test_one_class_has_no_score(metric):
    p, _ = scores(2, 10)
    for k in (0, 1):
        assert np.isnan(value(metric(2), p, torch.full((10,), k)))
    p, _ = scores(3, 10)
    assert np.isnan(value(metric(3), p, torch.zeros(10, dtype=torch.long)))


def test_absent_classes_are_left_out_of_the_mean():
    p, y = scores(3)
    kept = y < 2
    p, y = p[kept], y[kept]
    wanted = np.mean([roc_auc_score(y == k, p[:, k]) for k in (0, 1)])
    assert value(AreaUnderROC(3), p, y) == pytest.approx(wanted, abs=1e-6)


def test_sure_mistakes_cost_a_finite_loss():
    p = torch.tensor([[1.0, 0.0]])
    assert value(LogLoss(), p, torch.tensor([1])) == pytest.approx(-np.log(1e-7), rel=1e-5)
    assert value(LogLoss(), p, torch.tensor([0])) == 0.0


@pytest.mark.parametrize("level", [0.0, 1e4])
def test_equal_targets_explain_nothing(level):
    y = torch.full((20,), level)
    assert np.isnan(value(VarianceExplained(), y + torch.randn(20), y))
    assert value(VarianceExplained(), torch.arange(20.0), torch.arange(20.0)) == 1.0
