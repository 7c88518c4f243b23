"""Fixed-point number formats: from observed ranges, to integers, and constants that must fit.

A number is a *mantissa* m, an integer of `bits` bits, with a *point*: its value is m · 2^-point.
``fixed<W, I>`` of the vendors' headers is W = bits and I = bits - point.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtl_core.errors import ArgumentError, MTLError

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

WIDE = 63
"""Bits that an exact sum may take, sign left out, in the C simulation and in numpy."""


class FormatError(MTLError, ValueError):
    """A number or a sum does not fit its fixed-point format."""


@dataclass(frozen=True)
class Format:
    """A fixed-point format.

    Args:
        bits: W, all of them, at least 2.
        point: fraction bits; may be negative or more than `bits`.
        signed: two's complement, or no sign.

    Raises:
        ArgumentError: fewer than 2 bits or more than 32.
    """

    bits: int
    point: int
    signed: bool = True

    def __post_init__(self) -> None:
        """Check the width."""
        if not 2 <= self.bits <= 32:
            raise ArgumentError("bits", "be in 2..32", self.bits)

    @property
    def integer(self) -> int:
        """I, the integer bits, the sign among them."""
        return self.bits - self.point

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest mantissa."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1

    def __str__(self) -> str:
        """As the vendors write it."""
        return f"{'fixed' if self.signed else 'ufixed'}<{self.bits},{self.integer}>"

    def round(self, values: ArrayLike) -> Ints:
        """Nearest mantissas, halves up, held at the limits."""
        low, high = self.limits
        scaled = np.asarray(values, dtype=np.float64) * 2.0**self.point
        return np.clip(np.floor(scaled + 0.5), low, high).astype(np.int64)

    def truncate(self, values: ArrayLike) -> Ints:
        """Mantissas cut towards minus infinity, the default of ``ap_fixed``; for comparison."""
        low, high = self.limits
        scaled = np.asarray(values, dtype=np.float64) * 2.0**self.point
        return np.clip(np.floor(scaled), low, high).astype(np.int64)

    def value(self, mantissas: ArrayLike) -> Floats:
        """What mantissas stand for."""
        return np.asarray(mantissas, dtype=np.float64) * 2.0**-self.point


def integer_bits(largest: float, margin: float = 1.0) -> int:
    """I = ceil(log2(largest · margin)) + 1, the sign among them.

    >>> integer_bits(0.56), integer_bits(3.0, margin=2.0)
    (1, 4)
    """
    if not (math.isfinite(largest) and largest >= 0 and margin >= 1):
        rule = "be finite numbers, at least 0 and 1"
        raise ArgumentError("largest and margin", rule, (largest, margin))
    if largest == 0:
        return 1
    return math.ceil(math.log2(largest * margin)) + 1


def fit(largest: float, bits: int, margin: float = 1.0, top: int | None = None) -> Format:
    """The finest signed format in which a range has its place.

    Args:
        largest: greatest absolute value seen.
        bits: W.
        margin: how much more may come, at least 1; 2 for activations.
        top: most fraction bits, so that sums can be aligned to others.
    """
    integer = integer_bits(largest, margin)
    held = Format(bits, bits - integer)
    if held.round(largest) * 2.0**-held.point < largest - 2.0 ** -(held.point + 1):
        held = Format(bits, held.point - 1)  # a power of two itself is one step out of range
    return held if top is None or held.point <= top else Format(bits, top)


def literal(name: str, value: float, held: Format) -> int:
    """Mantissa of a constant, which must lie in its format's range and be more than rounding.

    ``fixed<12,5>`` makes 16.0 a -16, without a word; this raises instead.

    Args:
        name: of the constant, for the error.
        value: the constant.
        held: the type it gets.

    Raises:
        FormatError: it is out of range, or rounds to zero.

    >>> literal("half", 0.5, Format(12, 7))
    64
    """
    low, high = held.limits
    mantissa = math.floor(value * 2.0**held.point + 0.5)
    if not low <= mantissa <= high:
        reach = f"{low * 2.0**-held.point:g} to {high * 2.0**-held.point:g}"
        raise FormatError(f"constant {name} = {value} does not fit {held}, which holds {reach}.")
    if mantissa == 0 and value != 0:
        raise FormatError(f"constant {name} = {value} is zero in {held}: give it more bits.")
    return mantissa


def sum_bits(name: str, left: int, right: int, terms: int, most: int = WIDE) -> int:
    """W_a + W_w + ceil(log2(fan-in)): bits that make a sum of products exact.

    Raises:
        FormatError: more than an exact sum may have.
    """
    bits = left + right + math.ceil(math.log2(max(terms, 1)))
    if bits > most:
        raise FormatError(
            f"exact sums of {name} need {bits} bits ({left} + {right} for a product, {terms} "
            f"terms), more than {most}: take narrower formats."
        )
    return bits
