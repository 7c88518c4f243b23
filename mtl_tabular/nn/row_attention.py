"""Attention between rows: MultiTab-Net's inter-sample layer, and two forms that keep rows apart."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_tabular.nn.attention import FeedForward, check_heads

InterSample = Literal["none", "rowwise", "full", "memory"]
"""See `RowLayer`; ``none`` leaves the layer out."""


class KeysValues(NamedTuple):
    """Keys and values (M, D) of the support rows."""

    keys: Tensor
    values: Tensor


class RowLayer(nn.Module):
    """Pre-norm transformer layer on whole rows of width D (MultiTab, arXiv 2511.09970).

    Three modes; all have the value map, the output map and the feed-forward part.

    - ``rowwise``: every row attends to itself only, so its softmax is 1, and queries and keys,
      which could change nothing, do not exist. It is what the reference's configs with rotary
      positions compute.
    - ``full``: the rows of a batch attend to each other, as the paper describes it. A prediction
      then depends on the other rows of its batch; a batch of one row gives what ``rowwise`` gives.
    - ``memory``: a row attends to M support rows and to itself. Support rows attend to each other
      only. Predictions do not depend on the batch.

    Shapes: (B, D) → (B, D), or (B, C) where only the first C entries are wanted.

    Args:
        width: D.
        heads: divides D.
        feedforward: hidden width; it does not grow with D.
        ff_dropout: of the hidden layer and of what attention adds.
        attention_dropout: of the attention weights.
        mode: one of the three.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        *,
        ff_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        mode: InterSample = "rowwise",
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.mode = mode
        self.attention_dropout = attention_dropout
        self.norm1 = nn.LayerNorm(width)
        self.query_key = None if mode == "rowwise" else nn.Linear(width, 2 * width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(ff_dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, feedforward, ff_dropout)

    def forward(
        self, x: Tensor, outputs: int | None = None, support: KeysValues | None = None
    ) -> Tensor:
        """The first `outputs` entries of every row, None for all.

        Args:
            x: (B, D).
            outputs: C.
            support: what rows attend to in the mode ``memory``; None there means each other, which
                is how the support rows themselves go through the layer.
        """
        x = self._add_attention(x, self.norm1(x), support)
        y: Tensor = x[:, :outputs] + self.feed_forward(self.norm2(x), outputs)
        return y

    def keys_values(self, x: Tensor) -> KeysValues:
        """What other rows read of the rows `x` (M, D)."""
        assert self.query_key is not None
        z = self.norm1(x)
        width = z.shape[1]
        keys = F.linear(z, self.query_key.weight[width:], self.query_key.bias[width:])
        return KeysValues(keys, self.value(z))

    def _add_attention(self, x: Tensor, z: Tensor, support: KeysValues | None) -> Tensor:
        if self.query_key is None:
            return self._add_own(x, z)
        query, key = self.query_key(z).chunk(2, -1)
        value = self.value(z)
        dropout = self.attention_dropout if self.training else 0.0
        if support is None:
            q, k, v = (self._by_head(t) for t in (query, key, value))
            mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], dropout_p=dropout)[0]
        else:
            mixed = self._read_support(query, key, value, support, dropout)
        added: Tensor = self.dropout(self.output(mixed.transpose(0, 1).flatten(1)))
        return x + added

    def _add_own(self, x: Tensor, z: Tensor) -> Tensor:
        """``x + output(value(z))``.

        For more rows than D, multiplying the two matrices first takes half the operations.
        """
        dropping = self.training and (self.attention_dropout or self.dropout.p)
        if torch.compiler.is_compiling() or dropping or x.shape[0] <= x.shape[1]:
            value = self.value(z)
            if dropping:  # a head's single weight, 1, is dropped as a whole
                one = F.dropout(value.new_ones(len(z), self.heads, 1), self.attention_dropout)
                value = (value.unflatten(-1, (self.heads, -1)) * one).flatten(1)
            added: Tensor = self.dropout(self.output(value))
            return x + added
        out = self.output
        weight = out.weight @ self.value.weight
        bias = torch.mv(out.weight, self.value.bias) + out.bias
        return torch.addmm(x + bias, z, weight.t())

    def _read_support(
        self, query: Tensor, key: Tensor, value: Tensor, support: KeysValues, dropout: float
    ) -> Tensor:
        """Attention of every row to the support rows and itself, (heads, B, D / heads)."""
        q, k, v, keys, values = (self._by_head(t) for t in (query, key, value, *support))
        q = q * q.shape[-1] ** -0.5
        own = (q * k).sum(-1, keepdim=True)
        weights = torch.cat([q @ keys.transpose(1, 2), own], -1).softmax(-1)
        weights = F.dropout(weights, dropout)
        mixed: Tensor = weights[..., :-1] @ values + weights[..., -1:] * v
        return mixed

    def _by_head(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(0, 1)
        return split
