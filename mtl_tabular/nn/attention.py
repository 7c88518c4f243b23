"""Attention between the tokens of one row: MultiTab-Net's inter-feature layer."""

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_tabular.nn.chunked import (
    feed_forward,
    plain_attention,
    plain_feed_forward,
    self_attention,
)


class FeedForward(nn.Module):
    """Linear, exact GELU, dropout, linear; a prefix of the outputs may be asked for alone.

    Shapes: (..., D) → (..., D) or (..., outputs).

    Args:
        width: D.
        hidden: width between the two maps.
        dropout: of the hidden layer.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """The first `outputs` entries of the result, None for all."""
        inner, outer = self.inner, self.outer
        weights = (inner.weight, inner.bias, outer.weight[:outputs], outer.bias[:outputs])
        if self.training and self.dropout:
            return plain_feed_forward(x, *weights, self.dropout)
        return feed_forward(x, *weights)


class FeatureLayer(nn.Module):
    """Pre-norm transformer layer whose sequence is one row's tokens (MultiTab, arXiv 2511.09970).

    Shapes: (B, N, D) → (B, N, D), or (B, M, D) where only the first M tokens are wanted: the others
    are then read, but neither read nor are computed.

    Args:
        width: D.
        heads: divides D.
        feedforward: hidden width.
        ff_dropout: of the hidden layer and of what attention adds.
        attention_dropout: of the attention weights.
        blocked: (N, N) bool, see `mtl_tabular.nn.masks.blocked_pairs`.
    """

    blocked: Tensor | None

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        *,
        ff_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        blocked: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.norm1 = nn.LayerNorm(width)
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(ff_dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, feedforward, ff_dropout)
        # Nothing blocked means no mask at all, for which kernels are faster.
        some = blocked is not None and bool(blocked.any())
        self.register_buffer("blocked", blocked if some else None, persistent=False)

    def forward(self, x: Tensor, readers: int | None = None) -> Tensor:
        """The first `readers` tokens, None for all."""
        readers = x.shape[1] if readers is None else readers
        x = x[:, :readers] + self.dropout(self._attend(self.norm1(x), readers))
        y: Tensor = x + self.feed_forward(self.norm2(x))
        return y

    def _attend(self, z: Tensor, readers: int) -> Tensor:
        into, out = self.projection, self.output
        weights = (into.weight, into.bias, out.weight, out.bias)
        blocked = None if self.blocked is None else self.blocked[:readers]
        if self.training and self.attention_dropout:
            return plain_attention(
                z, *weights, self.heads, readers, blocked, self.attention_dropout
            )
        return self_attention(z, *weights, heads=self.heads, readers=readers, blocked=blocked)

    def weights(self, x: Tensor, readers: int) -> Tensor:
        """Attention weights (B, M, N) of the first M tokens, mean over heads; for plots."""
        q, k, _ = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.projection(self.norm1(x)).chunk(3, -1)
        )
        scores = q[:, :, :readers] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if self.blocked is not None:
            scores = scores.masked_fill(self.blocked[:readers], -torch.inf)
        weights: Tensor = scores.softmax(-1).mean(1)
        return weights


def check_heads(width: int, heads: int) -> None:
    """Refuse a number of heads that does not divide the width."""
    if heads < 1 or width % heads:
        raise ArgumentError("heads", f"be positive and divide the width {width}", heads)
