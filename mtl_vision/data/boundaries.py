"""Thin boundary maps: from label maps, and thin again after resampling."""

from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError
from mtl_vision.tasks.dense import IGNORE

Mask: TypeAlias = NDArray[np.bool_]

# Offsets (dy, dx) of the neighbours p2 ... p9 of Guo and Hall, clockwise from north.
_NEIGHBOURS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


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
    padded = np.pad(labels.astype(np.int64), 1, mode="edge")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    ) - 4 * padded[1:-1, 1:-1]
    return thin(laplacian != 0).astype(np.uint8)


def thin(mask: Mask) -> Mask:
    """Morphological thinning to lines one pixel wide that keep their connections.

    Two-subiteration thinning of Guo and Hall, "Parallel thinning with two-subiteration algorithms",
    Communications of the ACM 32(3), 1989, algorithm A1. The result is a subset of `mask`, has the
    same 8-connected components, and is not changed by thinning it again.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) bool.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    result = mask.copy()
    if not len(rows):
        return result
    # Only the part that holds pixels, with a border of background.
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    image = np.pad(mask[box], 1).astype(np.uint8)
    tables = _deletable()
    height, width = image.shape
    inner = image[1:-1, 1:-1]
    code = np.empty(inner.shape, np.uint8)
    changed = True
    while changed:
        changed = False
        for table in tables:
            code[:] = 0
            for bit, (dy, dx) in enumerate(_NEIGHBOURS):
                view = image[1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]
                np.bitwise_or(code, view << np.uint8(bit), out=code)
            delete = table[code] & inner.astype(bool)
            if delete.any():
                inner[delete] = 0
                changed = True
    result[box] = inner.astype(bool)
    return result


@cache
def _deletable() -> tuple[Mask, Mask]:
    """For each of the 256 neighbourhoods, whether either subiteration deletes the centre pixel."""
    codes = np.arange(256)
    p2, p3, p4, p5, p6, p7, p8, p9 = ((codes >> bit & 1).astype(bool) for bit in range(8))
    crossings = sum(
        (~a & (b | c)).astype(int)
        for a, b, c in ((p2, p3, p4), (p4, p5, p6), (p6, p7, p8), (p8, p9, p2))
    )
    first = sum((a | b).astype(int) for a, b in ((p9, p2), (p3, p4), (p5, p6), (p7, p8)))
    second = sum((a | b).astype(int) for a, b in ((p2, p3), (p4, p5), (p6, p7), (p8, p9)))
    fewest = np.minimum(first, second)
    candidate = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    odd = candidate & ~((p6 | p7 | ~p9) & p8)
    even = candidate & ~((p2 | p3 | ~p5) & p4)
    return odd, even
