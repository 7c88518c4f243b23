import numpy as np
import pytest
import torch

from mtl_core.errors import MTLError
from mtl_vision.metrics import BoundaryODSF
from mtl_vision.metrics.boundary import dilate, suppress_non_maxima

SIZE = 64
BOTH = pytest.mark.parametrize("matching", ["tolerance", "assignment"])


def lines() -> torch.Tensor:
    """A row, a column and a diagonal, one pixel wide, (1, H, W) uint8."""
    target = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    target[0, 12, 4:60] = 1
    target[0, 20:60, 50] = 1
    index = torch.arange(20, 45)
    target[0, index, index - 10] = 1
    return target


def score(preds, target, valid=None, **options) -> float:
    metric = BoundaryODSF(**options)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    metric.update(preds, target, everywhere if valid is None else valid)
    return float(metric.compute())


@BOTH
def test_the_truth_scores_one(matching):
    target = lines()
    for height in (1.0, 0.3):
        assert score(height * target.float(), target, matching=matching) == 1


@BOTH
def test_shifts_count_up_to_the_tolerance(matching):
    target = lines()
    options = {"max_distance": 2.2 / (SIZE * 2**0.5), "matching": matching}
    near = torch.roll(target, 2, dims=2).float()
    far = torch.roll(target, (4, 4), dims=(1, 2)).float()
    assert score(near, target, **options) > 0.97
    assert score(far, target, **options) < 0.3


@BOTH
def test_blurred_ridges_are_found(matching):
    target = lines()
    kernel = torch.tensor([1.0, 4, 6, 4, 1])
    kernel = (kernel[:, None] * kernel) / 256
    blurred = torch.nn.functional.conv2d(target[:, None].float(), kernel[None, None], padding=2)
    options = {"max_distance": 0.03, "matching": matching}
    assert score(2 * blurred[:, 0].clamp(max=0.5), target, **options) > 0.9


@BOTH
def test_by_hand(matching):
    """Half of a line is found, and as many pixels are predicted where nothing is."""
    target = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    target[0, 10, 10:50] = 1
    preds = torch.zeros(1, SIZE, SIZE)
    preds[0, 10, 10:30] = 0.8
    preds[0, 40, 10:30] = 0.8
    options = {"max_distance": 0.001, "matching": matching}
    assert score(preds, target, **options) == pytest.approx(0.5)


def test_one_to_one_matching_refuses_doubles():
    """Two parallel lines stand for one true line: only as many pixels match as the truth has."""
    target = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    target[0, 30, 10:50] = 1
    preds = torch.zeros(1, SIZE, SIZE)
    preds[0, 28, 10:50] = preds[0, 32, 10:50] = 1.0
    options = {"max_distance": 2.2 / (SIZE * 2**0.5)}
    assert score(preds, target, matching="tolerance", **options) == 1
    one_to_one = score(preds, target, matching="assignment", **options)
    assert one_to_one == pytest.approx(2 * 0.5 / 1.5, abs=1e-6)


def test_tolerance_bounds_assignment_on_thin_maps():
    g = torch.Generator().manual_seed(0)
    for seed in range(3):
        kept = torch.rand(1, SIZE, SIZE, generator=g) < 0.8
        clutter = torch.rand(1, SIZE, SIZE, generator=g) < 0.01
        noisy = ((lines().bool() & kept) | clutter).float() * (0.5 + 0.1 * seed)
        noisy = torch.roll(noisy, seed, dims=1)
        options = {"max_distance": 0.02, "thresholds": 4}
        loose = score(noisy, lines(), matching="tolerance", **options)
        strict = score(noisy, lines(), matching="assignment", **options)
        assert strict <= loose + 1e-6


@BOTH
def test_ignored_pixels_are_no_boundary(matching):
    target, clutter = lines(), lines().float()
    clutter[0, 2:6, 5:60:3] = 1.0
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[0, :8] = False
    assert score(clutter, target, valid, matching=matching) == 1
    assert score(clutter, target, matching=matching) < 0.95


@BOTH
def test_nothing_predicted_or_nothing_there_scores_zero(matching):
    nothing = torch.zeros(1, SIZE, SIZE)
    assert score(nothing, lines(), matching=matching) == 0
    assert score(lines().float(), nothing.byte(), matching=matching) == 0


def test_dilation_is_the_largest_value_in_a_disc():
    values = torch.rand(2, 11, 13, generator=torch.Generator().manual_seed(0))
    for radius in (0.5, 1.0, 2.3, 3.7):
        found = dilate(values, radius)
        y, x = np.mgrid[:11, :13]
        for i, j in ((0, 0), (5, 6), (10, 12), (3, 11)):
            disc = torch.from_numpy((y - i) ** 2 + (x - j) ** 2 <= radius**2)
            torch.testing.assert_close(found[:, i, j], values[:, disc].amax(1))


def test_suppression_only_removes():
    values = torch.rand(2, 20, 24, generator=torch.Generator().manual_seed(0))
    thin = suppress_non_maxima(values)
    assert ((thin == values) | (thin == 0)).all()
    assert 0 < (thin > 0).float().mean() < 0.6
    torch.testing.assert_close(suppress_non_maxima(lines().float()), lines().float())


@pytest.mark.parametrize(
    "wrong", [{"max_distance": 0.0}, {"thresholds": 0}, {"matching": "hungarian"}]
)
def test_bad_arguments_are_refused(wrong):
    with pytest.raises(MTLError, match=next(iter(wrong))):
        BoundaryODSF(**wrong)


def test_higher_is_better():
    assert BoundaryODSF().higher_is_better is True


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, -1), (1, 1)])
def test_only_the_crest_of_a_ridge_survives(direction):
    y, x = torch.meshgrid(*[torch.arange(21.0) - 10] * 2, indexing="ij")
    distance = (direction[0] * x + direction[1] * y) / np.hypot(*direction)
    kept = suppress_non_maxima(torch.exp(-0.125 * distance**2)[None])[0] > 0.05
    inner = slice(4, -4)
    assert torch.equal(kept[inner, inner], distance[inner, inner].abs() < 0.1)
