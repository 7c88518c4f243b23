"""Self-attention over one image's tokens."""

from dataclasses import dataclass

import numpy as np

from export.fpga.formats import Ints
from export.fpga.integer.arithmetic import product, written
from export.fpga.integer.linear import Linear, linear
from export.fpga.integer.softmax import exponents, softmax


@dataclass(frozen=True)
class Attention:
    """Self-attention in integers, without the layer behind it.

    Args:
        heads: number of heads.
        query: D to D.
        key: D to D.
        value: D to D.
        score: right shift from query times key to point 18.
        factor: log2(e) / √(D / heads) at point 19.
        shift: right shift from probabilities times values to the point of the output.
    """

    heads: int
    query: Linear
    key: Linear
    value: Linear
    score: int
    factor: int
    shift: int


def attention(x: Ints, layer: Attention, bits: int) -> Ints:
    """Contexts (N, D) of normalised tokens (N, D), heads beside each other."""
    q, k, v = (
        _split(linear(x, part, bits), layer.heads) for part in (layer.query, layer.key, layer.value)
    )
    z = exponents(product(q, k.swapaxes(-1, -2)), layer.score, layer.factor)
    context = written(product(softmax(z), v), layer.shift, bits)
    return np.asarray(context.transpose(1, 0, 2).reshape(x.shape), dtype=np.int64)


def _split(x: Ints, heads: int) -> Ints:
    """(N, D) as (heads, N, D / heads)."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)
