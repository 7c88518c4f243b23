"""GELU as ReLU minus a table, with a line between two entries."""

import numpy as np

from export.fpga.formats import Ints
from export.fpga.integer.arithmetic import saturated, shifted
from export.fpga.tables import ENTRIES, GELU_POINT, GELU_STEPS, gelu_table

TABLE = gelu_table()


def gelu(x: Ints, point: int, out_point: int, bits: int) -> Ints:
    """GELU of mantissas, rounded once.

    Args:
        x: any shape.
        point: of `x`, at least 5, the table's steps.
        out_point: of the result.
        bits: of the result.
    """
    low = point - GELU_STEPS
    a = np.abs(x)
    at = np.minimum(np.right_shift(a, low), ENTRIES - 1)
    rest = a - np.left_shift(at, low)
    here = TABLE[at]
    after = np.where(at < ENTRIES - 1, TABLE[np.minimum(at + 1, ENTRIES - 1)], 0)
    inside = np.right_shift(a, low) < ENTRIES
    rest = np.where(inside, rest, 0)
    line = here + np.right_shift((after - here) * rest, low)
    below = np.where(inside, line, 0)
    wide = shifted(np.maximum(x, 0), point - GELU_POINT) - below
    return np.asarray(saturated(shifted(wide, GELU_POINT - out_point), bits), dtype=np.int64)
