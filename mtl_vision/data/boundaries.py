"""Thin boundary maps from label maps."""

import numpy as np
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError
from mtl_vision.tasks.dense import IGNORE
from mtl_vision.thinning import thin


def label_boundaries(
    labels: NDArray[np.integer], *, ignore: int | None = IGNORE
) -> NDArray[np.uint8]:
    """Boundary map of a label map: one pixel thin, where two known labels meet.

    Args:
        labels: (H, W) class indices.
        ignore: index that means unlabelled, or none.

    Returns:
        (H, W) uint8: 1 on a boundary, 0 elsewhere, 255 where `labels` is unlabelled. A change
        towards an unlabelled pixel is no boundary.
    """
    if labels.ndim != 2:
        raise ArgumentError("labels", "be a (H, W) map", labels.shape)
    known = np.ones(labels.shape, bool) if ignore is None else labels != ignore
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= (labels[:, :-1] != labels[:, 1:]) & known[:, :-1] & known[:, 1:]
    edge[:-1] |= (labels[:-1] != labels[1:]) & known[:-1] & known[1:]
    return np.where(known, thin(edge).astype(np.uint8), np.uint8(IGNORE))


def laplacian_boundaries(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Where the Laplacian of a label map is not zero, thinned: PASCAL-Context's boundaries.

    Args:
        labels: (H, W) class indices.

    Returns:
        (H, W) uint8 of 0 and 1.
    """
    padded = np.pad(labels.astype(np.int64), 1, mode="reflect")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    ) - 4 * padded[1:-1, 1:-1]
    return thin(laplacian != 0).astype(np.uint8)
