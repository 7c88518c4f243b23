import pytest
import torch

from mtl_core.errors import LabelError
from mtl_core.tasks import reduce_loss
from mtl_vision.tasks import DepthEstimation


@pytest.mark.parametrize("protocol", ["survey", "atrc", "libmtl"])
def test_loss_is_absolute_error_over_known_depths(protocol):
    task = DepthEstimation(protocol=protocol)
    raw, target = torch.randn(2, 1, 4, 4), torch.rand(2, 4, 4) + 0.5
    target[0, :3] = 0
    valid = task.valid(target)
    total, count = reduce_loss(task.element_loss(raw, target, valid), valid)
    known = target > 0
    expected = (raw[:, 0] - target)[known].abs().mean()
    torch.testing.assert_close(total.sum() / count.sum(), expected)


def test_depth_is_never_negative():
    raw = torch.tensor([[[[-1.0, 0.0, 2.0]]]])
    assert DepthEstimation(protocol="atrc").activate(raw).tolist() == [[[0, 0, 2]]]
    survey = DepthEstimation(protocol="survey").activate(raw)
    torch.testing.assert_close(survey, torch.tensor([[[1e-9, 1e-9, 2]]]), rtol=1e-6, atol=0)


def test_protocols_have_their_metrics():
    assert DepthEstimation(protocol="libmtl").primary == "abs_err"
    assert set(DepthEstimation(protocol="libmtl").metrics()) == {"abs_err", "rel_err"}
    for protocol in ("survey", "atrc"):
        task = DepthEstimation(protocol=protocol)
        assert task.primary == "rmse"
        assert {"rmse", "log_rmse", "abs_rel", "sq_rel"} <= set(task.metrics())
    assert not any(DepthEstimation().higher_is_better().values())


@pytest.mark.parametrize(
    ("value", "rule"), [(-0.5, "never negative"), (float("nan"), "NaN"), (float("inf"), "infinity")]
)
def test_impossible_depths_are_refused(value, rule):
    target = torch.ones(1, 3, 3)
    target[0, 1, 1] = value
    with pytest.raises(LabelError, match=rule):
        DepthEstimation().check(target)
    with pytest.raises(LabelError, match="floating-point"):
        DepthEstimation().check(torch.ones(1, 3, 3, dtype=torch.int64))


def test_readout_is_in_metres():
    assert DepthEstimation().readout()["unit"] == "m"
