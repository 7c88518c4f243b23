"""The linear engine."""

from dataclasses import dataclass

import numpy as np

from export.fpga.formats import Ints
from export.fpga.integer.arithmetic import product, shifted, written


@dataclass(frozen=True)
class Linear:
    """A layer in integers.

    Args:
        weight: (out, in) mantissas; a bank of experts (E, out, in).
        bias: (out,) or (E, out) mantissas.
        align: left shift that brings a bias to the point of the sum.
        shift: right shift from the point of the sum to that of the output.
    """

    weight: Ints
    bias: Ints
    align: int
    shift: int

    def expert(self, number: int) -> "Linear":
        """One of a bank."""
        return Linear(self.weight[number], self.bias[number], self.align, self.shift)


def sums(x: Ints, layer: Linear) -> Ints:
    """Exact sums (N, out) of tokens (N, in), before they are written back."""
    return product(x, layer.weight.T) + shifted(layer.bias, -layer.align)


def linear(x: Ints, layer: Linear, bits: int, residual: Ints | None = None, align: int = 0) -> Ints:
    """Outputs (N, out) of `bits` bits for tokens (N, in).

    Args:
        x: (N, in) mantissas.
        layer: weights and shifts.
        bits: of the outputs.
        residual: (N, out) added to the sums before the one rounding.
        align: left shift that brings it to their point.
    """
    total = sums(x, layer)
    if residual is not None:
        total = total + shifted(residual, -align)
    return np.asarray(written(total, layer.shift, bits), dtype=np.int64)
