"""Layers that several dense decoders are made of."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

Norm: TypeAlias = Literal["batch", "group"]
"""``batch`` needs several values a channel in training; ``group`` none but the sample's own."""


def norm_layer(norm: Norm) -> Callable[..., nn.Module]:
    """Constructor of a normalisation layer for C channels.

    Group normalisation (Wu & He, ECCV 2018) takes as many groups as divide C, at most 32, of at
    least eight channels each, so that a group still has a variance on a 1×1 map.
    """
    return nn.BatchNorm2d if norm == "batch" else _group_norm


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if g == 1 or channels % (8 * g) == 0)
    return nn.GroupNorm(groups, channels)


def conv_block(
    in_channels: int, out_channels: int, *, kernel: int = 3, dilation: int = 1, norm: Norm = "batch"
) -> nn.Sequential:
    """Convolution that keeps the size, normalisation, ReLU."""
    block: nn.Sequential = Conv2dNormActivation(
        in_channels, out_channels, kernel, dilation=dilation, norm_layer=norm_layer(norm)
    )
    return block


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of (B, C, H, W) to `size`, corners not aligned."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def map_size(maps: Tensor) -> tuple[int, int]:
    """Height and width of (B, C, H, W)."""
    return maps.shape[-2], maps.shape[-1]
