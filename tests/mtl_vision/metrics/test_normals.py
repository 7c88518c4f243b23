import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mtl_core.errors import ArgumentError
from mtl_vision.metrics import MeanAngle, MedianAngle, RMSAngle, WithinAngle
from mtl_vision.metrics.normals import angle


def rotated(degrees: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors (1, 3, 1, N) at given angles from others, in random directions."""
    g = torch.Generator().manual_seed(0)
    first = normalize(torch.randn(len(degrees), 3, generator=g, dtype=torch.float64), dim=1)
    other = torch.randn(len(degrees), 3, generator=g, dtype=torch.float64)
    across = normalize(torch.linalg.cross(first, other), dim=1)
    a = torch.deg2rad(degrees.double())[:, None]
    second = a.cos() * first + a.sin() * across
    return tuple(v.T.reshape(1, 3, 1, -1).float() for v in (first, second))


def score(metric, degrees):
    p, g = rotated(degrees)
    metric.update(p, g, torch.ones(1, 1, len(degrees), dtype=torch.bool))
    return float(metric.compute())


@pytest.mark.parametrize("degrees", [0.0, 0.01, 10.0, 90.0, 179.0, 180.0])
def test_angle_of_a_rotation(degrees):
    p, g = rotated(torch.full((50,), degrees))
    assert (angle(p, g) - degrees).abs().max() < 1e-3
    assert score(MeanAngle(), torch.full((50,), degrees)) == pytest.approx(degrees, abs=1e-3)


def test_angle_agrees_with_the_arc_cosine():
    p, g = rotated(torch.linspace(5, 175, 100))
    cosine = (p * g).sum(1).clamp(-1, 1).acos().rad2deg()
    torch.testing.assert_close(angle(p, g), cosine, atol=1e-3, rtol=0)


def test_scores_of_known_angles():
    degrees = torch.tensor([1.0, 5, 11, 12, 22, 23, 29, 31, 90])
    assert score(MeanAngle(), degrees) == pytest.approx(degrees.mean().item(), abs=1e-3)
    assert score(RMSAngle(), degrees) == pytest.approx(math.sqrt((degrees**2).mean()), abs=1e-3)
    assert score(MedianAngle(), degrees) == pytest.approx(22, abs=0.01)
    for threshold, below in ((11.25, 3), (22.5, 5), (30.0, 7)):
        assert score(WithinAngle(threshold), degrees) == pytest.approx(below / 9)


@pytest.mark.parametrize("count", [1, 2, 1000, 1001])
def test_median_is_within_its_resolution(count):
    degrees = torch.rand(count, generator=torch.Generator().manual_seed(1)) * 179
    lower = float(np.sort(degrees.numpy())[(count - 1) // 2])
    assert score(MedianAngle(), degrees) == pytest.approx(lower, abs=0.0101)


def test_thresholds_lie_on_the_histogram():
    for wrong in (11.255, 0.0, 181.0):
        with pytest.raises(ArgumentError, match="threshold"):
            WithinAngle(wrong)


def test_stored_normals_need_not_be_exactly_of_length_one():
    """The direction of a normal read from an 8-bit file is at 0 degrees from it."""
    p, g = rotated(torch.full((50,), 10.0))
    for length in (0.98, 1.02):
        assert (angle(p, length * g) - 10).abs().max() < 1e-3
        assert angle(p, length * p).max() < 1e-3


def test_zero_predictions_are_at_right_angles():
    _, g = rotated(torch.full((5,), 10.0))
    torch.testing.assert_close(angle(torch.zeros_like(g), g), torch.full((1, 1, 5), 90.0))


def test_predictions_of_nan_are_the_worst():
    p, g = rotated(torch.zeros(4))
    p[..., 0] = torch.nan
    values = {}
    for metric in (MeanAngle(), RMSAngle(), WithinAngle(30.0)):
        metric.update(p, g, torch.ones(1, 1, 4, dtype=torch.bool))
        values[type(metric)] = float(metric.compute())
    assert math.isnan(values[MeanAngle])
    assert math.isnan(values[RMSAngle])
    assert values[WithinAngle] == 0.75


def test_no_median_beyond_opposite_directions():
    assert score(MedianAngle(), torch.full((4,), 180.0)) <= 180


def test_errors_fall_and_shares_rise():
    for metric in (MeanAngle(), MedianAngle(), RMSAngle()):
        assert metric.higher_is_better is False
    assert WithinAngle(30.0).higher_is_better is True
