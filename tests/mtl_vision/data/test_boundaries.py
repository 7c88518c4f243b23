"""Boundaries are thin, complete and undisturbed by unlabelled pixels."""

import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_vision.data.boundaries import label_boundaries, laplacian_boundaries


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
