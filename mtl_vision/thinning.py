"""Thinning of binary maps to lines one pixel wide."""

from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Mask: TypeAlias = NDArray[np.bool_]

# Offsets (dy, dx) of the neighbours p2 ... p9 of Guo and Hall, clockwise from north.
_NEIGHBOURS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


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
    image = np.pad(mask, 1).astype(np.uint8, order="C")
    flat = image.reshape(-1)
    offsets = [dy * image.shape[1] + dx for dy, dx in _NEIGHBOURS]
    left = np.flatnonzero(flat)  # only pixels still set are visited
    changed = True
    while changed:
        changed = False
        for table in _deletable():
            code = np.zeros(len(left), np.uint8)
            for bit, offset in enumerate(offsets):
                code |= flat[left + offset] << np.uint8(bit)
            delete = table[code]
            if delete.any():
                flat[left[delete]] = 0
                left = left[~delete]
                changed = True
    return image[1:-1, 1:-1].astype(bool)


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
