"""Boundaries are thin, complete and undisturbed by unlabelled pixels."""

import numpy as np
import pytest
from scipy import ndimage

from mtl_core.errors import ArgumentError
from mtl_vision.data.boundaries import label_boundaries, laplacian_boundaries, thin

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


def test_two_halves_have_one_straight_boundary():
    labels = np.zeros((6, 8), np.uint8)
    labels[:, 4:] = 3
    boundary = label_boundaries(labels)
    assert boundary.dtype == np.uint8
    assert (boundary.sum(1)[1:-1] == 1).all()
    assert (boundary[1:-1, 3] == 1).all()


def test_unlabelled_pixels_are_ignored_and_make_no_boundary():
    labels = np.zeros((6, 8), np.uint8)
    labels[:, 4:] = 11
    boundary = label_boundaries(labels, ignore=11)
    assert (boundary[:, :4] == 0).all()
    assert (boundary[:, 4:] == 255).all()


def test_laplacian_boundaries_are_thin_and_lie_on_the_change():
    labels = np.zeros((12, 12), np.int32)
    labels[:, 6:] = 400
    boundary = laplacian_boundaries(labels)
    assert (boundary.sum(1)[1:-1] == 1).all()
    assert set(np.flatnonzero(boundary.any(0))) <= {5, 6}


def test_labels_must_be_a_map():
    with pytest.raises(ArgumentError, match="labels"):
        label_boundaries(np.zeros((2, 3, 4), np.uint8))
