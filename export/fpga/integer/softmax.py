"""Softmax of a row in one pass for maximum and sum, and one for the probabilities."""

import numpy as np

from export.fpga.formats import Ints
from export.fpga.integer.arithmetic import saturated, shifted
from export.fpga.tables import ENTRIES, POWER_POINT, power_table

SCORE_POINT = 18
"""Point at which sums of products enter."""
SCORE_BITS = 40
FACTOR_POINT = 19
"""Point of the factor scale · log2(e)."""
EXPONENT_POINT = 16
"""Point of exponents of two."""
EXPONENT_BITS = 32
INVERSE_POINT = 30
PROBABILITY_POINT = 20
TABLE = np.append(power_table(), power_table()[0] >> 1)


def power(d: Ints) -> Ints:
    """2^-d at point 22, for exponents d ≥ 0 at point 16."""
    whole = np.right_shift(d, EXPONENT_POINT)
    fraction = d & ((1 << EXPONENT_POINT) - 1)
    low = EXPONENT_POINT - (ENTRIES.bit_length() - 1)
    at, rest = np.right_shift(fraction, low), fraction & ((1 << low) - 1)
    line = TABLE[at] + np.right_shift((TABLE[at + 1] - TABLE[at]) * rest, low)
    down = np.minimum(whole, POWER_POINT + 1)
    return np.asarray(np.right_shift(line, down), dtype=np.int64)


def exponents(scores: Ints, shift: int, factor: int) -> Ints:
    """Exponents of two of scores: sums of products times scale · log2(e), held in 32 bits.

    Args:
        scores: wide sums.
        shift: right shift that brings them to point 18.
        factor: scale · log2(e) at point 19.
    """
    narrow = saturated(shifted(scores, shift), SCORE_BITS)
    right = SCORE_POINT + FACTOR_POINT - EXPONENT_POINT
    return saturated(shifted(narrow * factor, right), EXPONENT_BITS)


def softmax(
    z: Ints, counted: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None" = None
) -> Ints:
    """Probabilities at point 20 along the last axis, of exponents of two at point 16.

    The sum follows the largest exponent seen so far, so that one pass is enough.

    Args:
        z: (..., N).
        counted: (..., N) which of them make up the sum; None: all.
    """
    largest = np.full(z.shape[:-1], -(1 << (EXPONENT_BITS - 1)), dtype=np.int64)
    total = np.zeros(z.shape[:-1], dtype=np.int64)
    for j in range(z.shape[-1]):
        new = z[..., j]
        higher = new > largest
        kept = np.right_shift(total * power(np.maximum(new - largest, 0)), POWER_POINT)
        plus = np.where(
            higher, kept + (1 << POWER_POINT), total + power(np.maximum(largest - new, 0))
        )
        if counted is not None:
            plus = np.where(counted[..., j], plus, total)
            higher = higher & counted[..., j]
        total = plus
        largest = np.where(higher, new, largest)
    inverse = (1 << (POWER_POINT + INVERSE_POINT)) // np.maximum(total, 1)
    parts = power(np.maximum(largest[..., None] - z, 0))
    right = POWER_POINT + INVERSE_POINT - PROBABILITY_POINT
    return np.asarray(shifted(parts * inverse[..., None], right), dtype=np.int64)
