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
