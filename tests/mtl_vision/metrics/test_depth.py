import pytest
import torch
from torch.testing import assert_close

from mtl_vision.metrics import DepthAbsRel, DepthLogRMSE, DepthMAE, DepthRMSE, DepthSqRel


@pytest.fixture
def maps():
    g = torch.Generator().manual_seed(0)
    preds, target = (torch.rand(2, 6, 6, generator=g) * 4 + 0.1 for _ in range(2))
    valid = torch.rand(2, 6, 6, generator=g) > 0.3
    valid[1, 1:] = False
    return preds, target, valid


def score(metric, preds, target, valid):
    metric.update(preds, target, valid)
    return metric.compute()


def test_errors_equal_their_definitions(maps):
    preds, target, valid = maps
    p, d = preds[valid], target[valid]
    assert_close(score(DepthRMSE(), *maps), (p - d).square().mean().sqrt())
    assert_close(score(DepthLogRMSE(), *maps), (p.log() - d.log()).square().mean().sqrt())
    assert_close(score(DepthMAE(), *maps), (p - d).abs().mean())
    assert_close(score(DepthAbsRel(), *maps), ((p - d).abs() / d).mean())
    assert_close(score(DepthSqRel(), *maps), ((p - d).square() / d).mean())


def test_rmse_is_pooled_over_pixels_not_averaged_over_images(maps):
    preds, target, valid = maps
    metric = DepthRMSE()
    single = []
    for i in range(2):
        metric.update(preds[i : i + 1], target[i : i + 1], valid[i : i + 1])
        single.append(score(DepthRMSE(), preds[i : i + 1], target[i : i + 1], valid[i : i + 1]))
    pooled = (preds - target)[valid].square().mean().sqrt()
    assert_close(metric.compute(), pooled)
    assert (pooled - torch.stack(single).mean()).abs() > 1e-3


def test_scaling_the_unit(maps):
    preds, target, valid = maps
    for metric, power in ((DepthRMSE, 1), (DepthLogRMSE, 0), (DepthMAE, 1), (DepthAbsRel, 0)):
        scaled = score(metric(), 10 * preds, 10 * target, valid)
        assert_close(scaled, 10**power * score(metric(), *maps))


def test_a_prediction_of_zero_has_a_finite_log_error():
    ones = torch.ones(1, 2, 2)
    found = score(DepthLogRMSE(), 0 * ones, ones, ones > 0)
    assert_close(found, -torch.tensor(1e-9).log())
