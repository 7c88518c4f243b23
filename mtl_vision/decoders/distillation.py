"""Gated messages from the features of other tasks (PAD-Net, Xu et al., CVPR 2018, eq. 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Distillation(nn.Module):
    """What one task takes from all others: G = F + Σ_a σ(conv_a(F_a)) ⊙ conv'_a(F_a).

    All 3×3 convolutions of a target are one grouped convolution, a group per source. Without
    sources it has no parameters and gives its input.

    Shapes: F and every F_a (B, C, h, w) → (B, C, h, w).

    Args:
        sources: number of other tasks.
        channels: C.
    """

    def __init__(self, sources: int, channels: int) -> None:
        super().__init__()
        self.sources = sources
        self.channels = channels
        self.convs = (
            nn.Conv2d(
                sources * channels, sources * 2 * channels, 3, padding=1, groups=sources, bias=True
            )
            if sources
            else None
        )

    def forward(self, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Features (B, C, h, w) of the task with the gated messages of the others added.

        Args:
            own: F.
            others: every F_a, in the same order each time.
        """
        if self.convs is None:
            return own
        batch, channels, height, width = own.shape
        both = self.convs(torch.cat(list(others), 1))
        gate, message = both.view(batch, self.sources, 2, channels, height, width).unbind(2)
        distilled: Tensor = own + (torch.sigmoid(gate) * message).sum(1)
        return distilled
