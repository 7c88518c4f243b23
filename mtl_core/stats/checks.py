"""Rules that arguments of this package have in common; each error names the argument."""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mtl_core.errors import ArgumentError

Array: TypeAlias = npt.NDArray[np.float64]
"""Double-precision values."""
Bools: TypeAlias = npt.NDArray[np.bool_]
"""Yes and no."""


def array(name: str, values: npt.ArrayLike, dims: int) -> Array:
    """`values` as finite doubles with `dims` axes, none of length zero.

    Raises:
        ArgumentError: not numeric, of another number of axes, empty, NaN or infinite.
    """
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(name, "hold numbers in rows of one length", values) from error
    if found.ndim != dims:
        raise ArgumentError(name, "have 1 axis" if dims == 1 else f"have {dims} axes", found.shape)
    if found.size == 0:
        raise ArgumentError(name, "not be empty", found.shape)
    finite(name, found)
    return found


def finite(name: str, values: Array) -> None:
    """Raise where a value is NaN or infinite, saying which."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        found = float(values[where])
        place = ", ".join(map(str, where))
        raise ArgumentError(name, "be finite throughout", f"{found} at index {place}")


def vector(name: str, values: npt.ArrayLike, least: int = 1) -> Array:
    """`values` as at least `least` finite doubles in one row.

    Raises:
        ArgumentError: fewer, or as for `array`.
    """
    found = array(name, values, 1)
    if len(found) < least:
        raise ArgumentError(name, f"hold at least {least} values", len(found))
    return found


def same_length(name: str, values: Array | Bools, other: str, reference: Array | Bools) -> None:
    """Raise where two arguments differ in their first axis."""
    if len(values) != len(reference):
        raise ArgumentError(
            name, f"have as many entries as {other} ({len(reference)})", len(values)
        )


def outcomes(name: str, values: npt.ArrayLike, least: int = 1) -> Bools:
    """`values` as booleans.

    Raises:
        ArgumentError: a value is neither 0 nor 1, or as for `vector`.
    """
    found = vector(name, values, least)
    odd = found[(found != 0) & (found != 1)]
    if len(odd):
        raise ArgumentError(name, "hold 0 and 1 only", float(odd[0]))
    return found.astype(bool)


def between(name: str, value: float, low: float, high: float) -> float:
    """`value` where it lies strictly between `low` and `high`.

    Raises:
        ArgumentError: it does not.
    """
    if not low < value < high:
        raise ArgumentError(name, f"lie between {low:g} and {high:g}, both excluded", value)
    return float(value)


def not_negative(name: str, value: float) -> float:
    """`value` where it is finite and at least 0.

    Raises:
        ArgumentError: it is not.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ArgumentError(name, "be finite and at least 0", value)
    return float(value)


def positive(name: str, value: float) -> float:
    """`value` where it is finite and above 0.

    Raises:
        ArgumentError: it is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ArgumentError(name, "be finite and above 0", value)
    return float(value)


def count(name: str, value: int, least: int = 1) -> int:
    """`value` where it is a whole number of at least `least`.

    Raises:
        ArgumentError: it is not.
    """
    if not (math.isfinite(value) and value == int(value) and value >= least):
        raise ArgumentError(name, f"be a whole number of at least {least}", value)
    return int(value)


def successes_of(name: str, successes: int, total: str, n: int) -> tuple[int, int]:
    """`successes` and `n` where 0 <= successes <= n and n >= 1.

    Raises:
        ArgumentError: they are not.
    """
    n = count(total, n)
    if count(name, successes, 0) > n:
        raise ArgumentError(name, f"be at most {total} ({n})", successes)
    return int(successes), n
