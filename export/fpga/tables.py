"""The three function tables of the kernels, at most 256 entries each, read with interpolation.

| table | function | between entries |
|---|---|---|
| GELU | δ(a) = a Φ(-a), so that GELU(x) = ReLU(x) - δ(abs(x)) | a line; 0 from a = 8 |
| power | 2^-f for f in [0, 1) | a line |
| root | 1/√m for m in [1, 4) | one Newton step |
"""

import math

import numpy as np

from export.fpga.formats import Floats, Format, Ints, literal

ENTRIES = 256
GELU_STEPS = 5
"""log2 of the GELU table's entries by unit of a: 256 entries reach up to 8."""
GELU_POINT = 24
POWER_POINT = 22
ROOT_POINT = 23
GELU = Format(22, GELU_POINT, signed=False)
POWER = Format(POWER_POINT + 1, POWER_POINT, signed=False)
ROOT = Format(ROOT_POINT + 1, ROOT_POINT, signed=False)


def delta(a: Floats) -> Floats:
    """δ(a) = a · (1 - Φ(a)) for a ≥ 0: how far GELU lies below ReLU on either side of zero."""
    tail = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in a.ravel()]).reshape(a.shape)
    return np.asarray(a * tail, dtype=np.float64)


def gelu_table() -> Ints:
    """δ at 0, 1/32, 2/32, ... as mantissas, moved so that lines miss δ by half as much.

    A line through the function misses it by h²/8 δ'' between two entries. Moving the entries by
    half of that spreads the miss evenly to both sides.
    """
    step = 2.0**-GELU_STEPS
    a = np.arange(ENTRIES, dtype=np.float64) * step
    density = np.exp(-(a**2) / 2) / math.sqrt(2 * math.pi)
    curvature = density * (a**2 - 2)
    moved = delta(a) - step**2 / 16 * curvature
    moved[0] = 0.0  # zero stays zero
    return _mantissas("gelu", np.maximum(moved, 0.0), GELU)


def power_table() -> Ints:
    """2^-(j / 256) as mantissas; behind the last entry stands half of the first one."""
    return _mantissas("power", 2.0 ** -(np.arange(ENTRIES) / ENTRIES), POWER)


def root_table() -> Ints:
    """1/√m in the middles of [64/64, 65/64), ..., [255/64, 4): 192 entries, the first is j = 64."""
    middles = (np.arange(64, 256) + 0.5) / 64
    return _mantissas("root", 1 / np.sqrt(middles), ROOT)


def _mantissas(name: str, values: Floats, held: Format) -> Ints:
    """Every entry as a literal of the table's type."""
    tiny = 2.0 ** -(held.point + 1)  # entries that are zero in earnest
    found = [
        literal(f"{name}[{i}]", v, held) if v >= tiny else 0 for i, v in enumerate(values.tolist())
    ]
    return np.array(found, dtype=np.int64)
