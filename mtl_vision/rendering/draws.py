"""Random numbers whose stream depends on their seed alone."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Draws:
    """Uniform draws from the raw output of PCG64.

    NumPy promises the raw streams of `PCG64` and `SeedSequence` for good, but not those of
    `Generator`, whose methods may change between releases (NEP 19). Only the former are used here.

    Args:
        entropy: non-negative integers; equal sequences give equal draws.

    Example:
        >>> Draws([0, 1, 2]).uniform() == Draws([0, 1, 2]).uniform()
        True
    """

    def __init__(self, entropy: Sequence[int]) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(list(entropy)))
        self._words: list[int] = []

    def _word(self) -> int:
        """64 random bits; drawn in blocks, which is several times faster."""
        if not self._words:
            self._words = np.asarray(self._bits.random_raw(256)).tolist()
        return self._words.pop()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * ((self._word() >> 11) * 2.0**-53)

    def integer(self, high: int) -> int:
        """One of 0..high-1."""
        return (self._word() >> 32) * high >> 32

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely as the others."""
        return options[self.integer(len(options))]

    def block(self, rows: int, columns: int) -> NDArray[Any]:
        """Numbers in [0, 1), (rows, columns)."""
        words = np.asarray(self._bits.random_raw(rows * columns))
        return ((words >> np.uint64(11)) * 2.0**-53).reshape(rows, columns)

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """`count` bytes, each of the 256 values as likely as the others."""
        words = np.asarray(self._bits.random_raw(-(-count // 8)))
        return words.astype("<u8").view(np.uint8)[:count]
