"""The last layers of one task, from a map of its own to its prediction."""

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.nn import FeatureInfo, Features, LinearDecoder
from mtl_core.tasks import Task
from mtl_vision.decoders.blocks import Norm, map_size, norm_layer, resize

HeadKind: TypeAlias = Literal["full", "ds", "pixelshuffle"]
"""Where and how the 3×3 convolution of a head is done, see `MapHead`."""


class MapHead(nn.Module):
    """Up-sampling, 3×3 convolution, normalisation, GELU, 1×1 convolution.

    With P positions of the input, C channels, c of the prediction and up-sampling by u:

    | kind | what | multiply-accumulates |
    |---|---|---|
    | ``full`` | bilinear u×, then the convolutions | P·u²·(9C² + C·c) |
    | ``ds`` | the 3×3 convolution depth-wise, then 1×1 | P·u²·(9C + C² + C·c) |
    | ``pixelshuffle`` | both convolutions first, u²·c channels rearranged | P·(9C² + u²·C·c) |

    ``full`` is that of TaskPrompter (Ye & Xu, ICLR 2023), ``pixelshuffle`` the sub-pixel
    convolution of Shi et al. (CVPR 2016).

    Shapes: (B, C, h, w) → (B, c, u·h, u·w).

    Args:
        width: C.
        out_channels: c.
        kind: see above.
        upsample: u.
        norm: ``batch`` or ``group``.
    """

    def __init__(
        self,
        width: int,
        out_channels: int,
        *,
        kind: HeadKind = "full",
        upsample: int = 4,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.kind = kind
        self.upsample = upsample
        if kind == "ds":
            self.conv: nn.Module = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.Conv2d(width, width, 1, bias=False),
            )
        else:
            self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = norm_layer(norm)(width)
        parts = upsample**2 if kind == "pixelshuffle" else 1
        self.classifier = nn.Conv2d(width, parts * out_channels, 1)
        if parts > 1:
            # The u² parts of a position start equal (ICNR, Aitken et al. 2017): no chequerboard.
            with torch.no_grad():
                for p in (self.classifier.weight, self.classifier.bias):
                    assert p is not None
                    p.copy_(p[::parts].repeat_interleave(parts, 0))

    def forward(self, maps: Tensor) -> Tensor:
        """Raw prediction (B, c, u·h, u·w)."""
        if self.kind != "pixelshuffle":
            height, width = map_size(maps)
            maps = resize(maps, (self.upsample * height, self.upsample * width))
        found: Tensor = self.classifier(F.gelu(self.norm(self.conv(maps))))
        return F.pixel_shuffle(found, self.upsample) if self.kind == "pixelshuffle" else found


class _PooledHead(nn.Module):
    """A task of whole images on a map."""

    def __init__(self, width: int, task: Task) -> None:
        super().__init__()
        self.linear = LinearDecoder(FeatureInfo((width,), (1,)), task)

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.linear(Features([maps]))
        return found


def build_head(
    width: int, task: Task, *, kind: HeadKind = "full", upsample: int = 4, norm: Norm = "batch"
) -> nn.Module:
    """A `MapHead` for a dense task, a mean and a linear layer for a task of whole images.

    Args:
        width: channels of the map.
        task: the task.
        kind: of the head.
        upsample: factor from the map to the prediction.
        norm: ``batch`` or ``group``.
    """
    if not task.dense:
        return _PooledHead(width, task)
    return MapHead(width, task.out_channels, kind=kind, upsample=upsample, norm=norm)


def light_head(width: int, task: Task) -> nn.Module:
    """One 1×1 convolution, or a mean and a linear layer; for intermediate predictions.

    Args:
        width: channels of the map.
        task: the task.
    """
    return nn.Conv2d(width, task.out_channels, 1) if task.dense else _PooledHead(width, task)
