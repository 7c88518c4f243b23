"""A whole encoder of one image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.fpga.formats import Ints
from export.fpga.integer.attention import Attention, attention
from export.fpga.integer.gelu import gelu
from export.fpga.integer.linear import Linear, linear
from export.fpga.integer.moe import Gelu, Mixture, Routed, moe
from export.fpga.integer.norm import Norm, layer_norm


@dataclass(frozen=True)
class Perceptron:
    """A dense MLP in integers; `align` brings the residual to the second layer's sums."""

    first: Linear
    gelu: Gelu
    second: Linear
    align: int


@dataclass(frozen=True)
class Block:
    """A pre-norm block in integers; `align` brings the residual to the projection's sums."""

    norm1: Norm
    attention: Attention
    project: Linear
    align: int
    norm2: Norm
    feed: Perceptron | Mixture


@dataclass(frozen=True)
class Encoder:
    """An encoder in integers.

    Args:
        bits: of activations.
        patch: pixels 0..255 to D.
        prefix: (P, D) class and register tokens, position embedding included.
        position: (patches, D) added to the patches' sums.
        position_align: left shift that brings it there.
        blocks: in order.
        norm: the final one.
    """

    bits: int
    patch: Linear
    prefix: Ints
    position: Ints
    position_align: int
    blocks: tuple[Block, ...]
    norm: Norm


def encode(
    pixels: Ints, encoder: Encoder, task: str, orders: Sequence[Sequence[int] | None] | None = None
) -> tuple[Ints, list[Routed]]:
    """Final tokens (N, D) of one image, and how its tokens were routed.

    Args:
        pixels: (patches, C · P · P) in 0..255.
        encoder: all layers.
        task: whose routers.
        orders: of the experts, layer by layer of those that have some.
    """
    bits = encoder.bits
    patches = linear(pixels, encoder.patch, bits, encoder.position, encoder.position_align)
    x = np.concatenate([encoder.prefix, patches])
    records: list[Routed] = []
    for block in encoder.blocks:
        before = x
        context = attention(layer_norm(x, block.norm1, bits), block.attention, bits)
        x = linear(context, block.project, bits, x, block.align)
        inner = layer_norm(x, block.norm2, bits)
        feed = block.feed
        if isinstance(feed, Perceptron):
            hidden = linear(inner, feed.first, bits)
            active = gelu(hidden, feed.gelu.point, feed.gelu.out_point, bits)
            x = linear(active, feed.second, bits, x, feed.align)
        else:
            order = None if orders is None else orders[len(records)]
            seen = before if feed.ahead else None
            x, routed = moe(inner, x, feed, task, bits, seen=seen, order=order)
            records.append(routed)
    return layer_norm(x, encoder.norm, bits), records
