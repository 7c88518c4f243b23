"""One sampling is the same for whatever it is applied to."""

import cv2
import numpy as np
import pytest

from mtl_vision.data.geometry import Warp


def warp(shape, size, *, zoom=1.0, angle=0.0, factors=None, canvas=None, corner=(0, 0)):
    factors = factors or (zoom * size[0] / shape[0], zoom * size[1] / shape[1])
    return Warp(shape, size, zoom, angle, factors, canvas or size, corner, 255)


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 200, (12, 16), dtype=np.uint8)


def test_the_identity_returns_the_same_array(array):
    assert warp((12, 16), (12, 16)).nearest(array, 0) is array
    assert warp((12, 16), (12, 16)).smooth(array, (0,), cv2.INTER_LINEAR) is array


def test_whole_factors_repeat_pixels(array):
    enlarged = warp((12, 16), (24, 48)).nearest(array, 0)
    np.testing.assert_array_equal(enlarged, array.repeat(2, 0).repeat(3, 1))


def test_crops_and_padding_move_whole_pixels(array):
    unscaled = {"factors": (1.0, 1.0), "canvas": (12, 16)}
    crop = warp((12, 16), (5, 6), corner=(3, 4), **unscaled).nearest(array, 9)
    np.testing.assert_array_equal(crop, array[3:8, 4:10])
    padded = warp((12, 16), (14, 20), corner=(-1, -2), **unscaled).nearest(array, 9)
    np.testing.assert_array_equal(padded, np.pad(array, ((1, 1), (2, 2)), constant_values=9))
    mixed = warp((12, 16), (14, 6), corner=(-1, 4), **unscaled).nearest(array, 9)
    np.testing.assert_array_equal(mixed[1:-1], array[:, 4:10])


def test_a_cropped_zoom_is_a_part_of_the_whole_zoom(array):
    whole = warp((12, 16), (36, 48)).nearest(array, 0)
    crop = warp(
        (12, 16), (10, 11), zoom=3.0, factors=(3.0, 3.0), canvas=(36, 48), corner=(7, 9)
    ).nearest(array, 0)
    np.testing.assert_array_equal(crop, whole[7:17, 9:20])


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_strong_reductions_average(angle):
    """A fine checkerboard becomes grey instead of an alias of itself."""
    board = (np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)
    reduced = warp((96, 96), (13, 13), angle=angle).smooth(board, (128,), cv2.INTER_LINEAR)
    assert np.abs(reduced.astype(int) - 127).max() <= 12


def test_linear_maps_keep_a_ramp():
    """Sampling places are right to a fraction of a pixel: a linear ramp stays that ramp."""
    y, x = np.mgrid[:40, :50].astype(np.float32)
    turned = warp((40, 50), (40, 50), zoom=1.3, angle=30.0).smooth(x, (0,), cv2.INTER_LINEAR)
    cos, sin = np.cos(np.radians(30)) / 1.3, np.sin(np.radians(30)) / 1.3
    expected = cos * (x - 24.5) + sin * (y - 19.5) + 24.5
    inside = np.hypot(x - 24.5, y - 19.5) < 20
    assert np.abs(turned - expected)[inside].max() < 0.05
