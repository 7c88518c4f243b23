"""Layer norm in two passes: the mean, then the variance of what is left."""

import math
from dataclasses import dataclass

import numpy as np

from export.fpga.formats import Ints, sum_bits
from export.fpga.integer.arithmetic import shifted, written
from export.fpga.tables import ROOT_POINT, root_table

GUARD = 2
"""Bits below the input's last one that the mean keeps."""
SQUARE_BITS = 24
"""Bits of a number that is squared."""
UNIT_POINT = 26
"""Point of normalised numbers, which lie in [-1, 1]."""
MANTISSA_POINT = 22
"""The sum of squares is m · 2^e with m in [1, 4) at this point, and e even."""
TABLE = root_table()


@dataclass(frozen=True)
class Norm:
    """A layer norm in integers.

    Args:
        gamma: (D,) mantissas of the weight times √D.
        beta: (D,) mantissas of the bias.
        epsilon: D · eps at the point of the sum of squares, at least 1.
        align: left shift that brings beta to the point of unit · gamma.
        shift: right shift from there to the point of the output.
    """

    gamma: Ints
    beta: Ints
    epsilon: int
    align: int
    shift: int


def inverse_width(dim: int) -> tuple[int, int]:
    """1/D as a mantissa of 24 bits, and its point."""
    point = 23 + math.floor(math.log2(dim))
    return round(2**point / dim), point


def cut(bits: int) -> int:
    """Bits that a centred number of an input of `bits` bits loses before it is squared."""
    return max(0, bits + 1 + GUARD - SQUARE_BITS)


def check(dim: int, bits: int) -> None:
    """Refuse sizes at which the sums of a layer norm are not exact."""
    sum_bits("a layer norm's mean", bits, 24, dim)
    sum_bits("a layer norm's variance", SQUARE_BITS, SQUARE_BITS, dim)


def layer_norm(x: Ints, layer: Norm, bits: int) -> Ints:
    """Normalised tokens (N, D) of tokens (N, D), both of `bits` bits."""
    inverse, point = inverse_width(x.shape[-1])
    mean = shifted(x.sum(-1, keepdims=True) * inverse, point - GUARD)
    centred = np.left_shift(x, GUARD) - mean
    lost = cut(bits)
    short = shifted(centred, lost)
    total = (short * short).sum(-1, keepdims=True) + layer.epsilon
    root, exponent = inverse_root(total)
    unit = shifted(
        centred * root,
        ROOT_POINT - UNIT_POINT + lost + (exponent + MANTISSA_POINT) // 2,
    )
    wide = unit * layer.gamma + shifted(layer.beta, -layer.align)
    return written(wide, layer.shift, bits)


def inverse_root(total: Ints) -> tuple[Ints, Ints]:
    """1/√total = y · 2^-((e + 22) / 2) for positive integers: y at point 23 in (1/2, 1], and e.

    The table gives 8 bits, one Newton step doubles them.
    """
    length = np.zeros_like(total)
    rest = total.copy()
    for step in (32, 16, 8, 4, 2, 1):
        big = np.right_shift(rest, step) > 0
        length += np.where(big, step, 0)
        rest = np.where(big, np.right_shift(rest, step), rest)
    exponent = length - MANTISSA_POINT
    exponent = exponent - (exponent & 1)
    down, up = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    mantissa = np.left_shift(np.right_shift(total, down), up)
    first = TABLE[np.right_shift(mantissa, MANTISSA_POINT - 6) - 64]
    square = np.right_shift(first * first, ROOT_POINT)
    near = np.right_shift(mantissa * square, MANTISSA_POINT)
    better = np.right_shift(first * ((3 << ROOT_POINT) - near), ROOT_POINT + 1)
    return better, exponent
