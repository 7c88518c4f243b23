"""Shifting, rounding and saturation, and exact products of integer matrices."""

import numpy as np

from export.fpga.formats import Ints


def shifted(values: Ints, right: int | Ints) -> Ints:
    """Times 2^-right, halves rounded up; to the left where `right` is negative."""
    if isinstance(right, int):
        if right <= 0:
            return np.left_shift(values, -right)
        return np.right_shift(values + (1 << (right - 1)), right)
    down, up = np.maximum(right, 0), np.maximum(-right, 0)
    half = np.where(down > 0, np.left_shift(np.int64(1), np.maximum(down - 1, 0)), 0)
    moved = np.left_shift(values, up) + half
    return np.asarray(np.right_shift(moved, down), dtype=np.int64)


def saturated(values: Ints, bits: int) -> Ints:
    """Held within two's complement of `bits` bits."""
    return np.clip(values, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def written(values: Ints, right: int, bits: int) -> Ints:
    """The write back of a wide sum: one rounding, then saturation."""
    return saturated(shifted(values, right), bits)


def product(left: Ints, right: Ints) -> Ints:
    """The product without rounding; in float64 where that is exact, since it is much faster."""
    terms = left.shape[-1]
    largest = float(np.abs(left).max(initial=0)) * float(np.abs(right).max(initial=0)) * terms
    if largest < 2**53:
        return np.asarray(left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)
    return np.asarray(left @ right, dtype=np.int64)
