import pytest
import torch
from torch.nn.functional import normalize

from mtl_core.errors import LabelError
from mtl_core.tasks import reduce_loss
from mtl_vision.tasks import SurfaceNormals


@pytest.fixture
def maps():
    g = torch.Generator().manual_seed(0)
    raw = torch.randn(2, 3, 4, 5, generator=g)
    target = normalize(torch.randn(2, 3, 4, 5, generator=g), dim=1)
    target[0, :, :2] = 0
    return raw, target


def batch_loss(protocol, raw, target):
    task = SurfaceNormals(protocol=protocol)
    valid = task.valid(target)
    total, count = reduce_loss(task.element_loss(raw, target, valid), valid)
    return total.sum() / count.sum()


def test_losses_are_the_literatures(maps):
    raw, target = maps
    unit = raw / raw.norm(dim=1, keepdim=True)
    elements = (target != 0).any(1, keepdim=True).expand_as(target)
    pixels = elements[:, 0].sum()
    distance = ((unit - target).abs() * elements).sum()
    torch.testing.assert_close(batch_loss("survey", raw, target), distance / elements.sum())
    torch.testing.assert_close(batch_loss("atrc", raw, target), distance / pixels)
    cosine = 1 - (unit * target * elements).sum() / pixels
    torch.testing.assert_close(batch_loss("libmtl", raw, target), cosine)


def test_atrc_is_three_times_survey(maps):
    torch.testing.assert_close(batch_loss("atrc", *maps), 3 * batch_loss("survey", *maps))


@pytest.mark.parametrize("protocol", ["survey", "atrc", "libmtl"])
def test_loss_and_angle_do_not_depend_on_length(maps, protocol):
    raw, target = maps
    torch.testing.assert_close(
        batch_loss(protocol, 7 * raw, target), batch_loss(protocol, raw, target)
    )
    unit = SurfaceNormals().activate(raw)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2, 4, 5))


def test_a_zero_prediction_has_a_finite_gradient(maps):
    _, target = maps
    for protocol in ("survey", "atrc", "libmtl"):
        raw = torch.zeros_like(target).requires_grad_()
        batch_loss(protocol, raw, target).backward()
        assert raw.grad.isfinite().all()


@pytest.mark.parametrize(
    ("value", "rule"),
    [((0.5, 0, 0), r"unit vectors.*0\.5"), ((1.0, 1, 1), "unit"), ((float("nan"), 0, 0), "NaN")],
)
def test_vectors_that_are_no_normals_are_refused(maps, value, rule):
    _, target = maps
    target[1, :, 2, 2] = torch.tensor(value)
    with pytest.raises(LabelError, match=rule):
        SurfaceNormals().check(target)


def test_eight_bit_normals_are_accepted(maps):
    _, target = maps
    stored = ((target + 1) * 127.5).round() / 127.5 - 1
    SurfaceNormals().check(torch.where(target == 0, 0.0, stored))


def test_two_components_are_refused():
    with pytest.raises(LabelError, match=r"\(B, 3, H, W\)"):
        SurfaceNormals().check(torch.zeros(1, 2, 4, 4))


def test_readout_names_the_axes():
    found = SurfaceNormals().readout()
    assert (found["kind"], found["channels"]) == ("normals", ["x", "y", "z"])
