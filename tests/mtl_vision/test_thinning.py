"""Thinning keeps what is connected, and leaves lines one pixel wide."""

import numpy as np
import pytest
from scipy import ndimage

from mtl_vision.thinning import thin

EIGHT = np.ones((3, 3))


@pytest.mark.parametrize("seed", range(10))
def test_thinning_keeps_components_and_is_idempotent(seed):
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.normal(size=(60, 80)), rng.uniform(0.6, 4)) > 0
    mask = np.pad(mask, 2)  # away from the border every hole is closed
    thinned = thin(mask)
    assert (thinned <= mask).all()
    assert ndimage.label(thinned, EIGHT)[1] == ndimage.label(mask, EIGHT)[1]
    assert ndimage.label(~thinned)[1] == ndimage.label(~mask)[1]  # holes too
    np.testing.assert_array_equal(thin(thinned), thinned)


def test_a_thick_line_becomes_one_pixel_wide():
    mask = np.zeros((20, 40), bool)
    mask[7:12, 3:37] = True
    thinned = thin(mask)
    assert (thinned[:, 8:32].sum(0) == 1).all()


def test_memory_order_does_not_matter():
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(30, 40)), 2) > 0
    np.testing.assert_array_equal(thin(np.asfortranarray(mask)), thin(mask))


def test_nothing_to_thin():
    assert not thin(np.zeros((4, 5), bool)).any()
