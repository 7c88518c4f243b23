"""Stages of InvPT: attention over all tasks' positions, with messages between the stages."""

from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from mtl_vision.decoders.blocks import map_size, resize

# Maps of all tasks are (B, T, C, h, w) here; layers of a task each are grouped convolutions on
# (B, T·C, h, w), which is one launch instead of T.


def grouped_block(
    tasks: int, in_channels: int, out_channels: int, *, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """A 3×3 convolution for each task, batch norm, ReLU.

    Shapes: (B, T·in_channels, h, w) → (B, T·out_channels, h, w).

    Args:
        tasks: T; a group each.
        in_channels: of every task.
        out_channels: of every task.
        dilation: of the convolution, which keeps the size.
        bias: of the convolution.
    """
    conv = nn.Conv2d(
        tasks * in_channels,
        tasks * out_channels,
        3,
        padding=dilation,
        dilation=dilation,
        groups=tasks,
        bias=bias,
    )
    return nn.Sequential(conv, nn.BatchNorm2d(tasks * out_channels), nn.ReLU())


class UpEmbedding(nn.Module):
    """Bilinear doubling and two dilated 3×3 convolutions a task; then a map of the encoder.

    Shapes: (B, T, in_channels, h, w) → (B, T, out_channels, 2h, 2w).

    Args:
        tasks: T.
        in_channels: of every task.
        out_channels: of every task.
    """

    def __init__(self, tasks: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.tasks = tasks
        self.convs = nn.Sequential(
            grouped_block(tasks, in_channels, out_channels, dilation=2),
            grouped_block(tasks, out_channels, out_channels, dilation=2),
        )

    def forward(self, maps: Tensor, skip: Tensor | None) -> Tensor:
        """Maps at twice the resolution.

        Args:
            maps: of all tasks.
            skip: (B, out_channels, h', w') that is added to every task, resampled; or None.
        """
        height, width = map_size(maps)
        size = (2 * height, 2 * width)
        out = self.convs(resize(maps.flatten(1, 2), size)).unflatten(1, (self.tasks, -1))
        return out if skip is None else cast("Tensor", out + resize(skip, size)[:, None])


class JointAttention(nn.Module):
    """Attention of all positions of all tasks to pooled positions of all tasks.

    Queries are the tasks' maps halved by a depth-wise 3×3 convolution of their own, keys and values
    the maps averaged over `pool` × `pool` positions. The logits' scale is C^{-1/2}, whatever the
    number of heads. Logits of the stage before are resampled to the queries' grid, put beside these
    as further heads, and fused with them by a 1×1 convolution.

    Shapes: (B, T, C, h, w) → (B, T, C, ceil(h/2), ceil(w/2)).

    Args:
        tasks: T.
        channels: C, a multiple of `heads`.
        pool: side of the averaged windows, those at the border smaller.
        heads: attention heads.
        message: whether logits of a stage before come in.
    """

    def __init__(
        self, tasks: int, channels: int, *, pool: int, heads: int = 2, message: bool = False
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.heads = heads
        self.pool = pool
        both = tasks * channels
        self.halve = nn.Sequential(
            nn.Conv2d(both, both, 3, stride=2, padding=1, groups=both, bias=False),
            nn.BatchNorm2d(both),
        )
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.fuse = nn.Conv2d(2 * heads, heads, 1) if message else None
        self.scale = channels**-0.5

    def forward(self, maps: Tensor, message: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attended maps, and fused logits (B, heads, T, h', w', M) for the next stage.

        Args:
            maps: normalised maps of all tasks.
            message: the logits of the stage before, or None.
        """
        batch, tasks, channels = maps.shape[:3]
        halved = self.halve(maps.flatten(1, 2))
        height, width = map_size(halved)
        pooled = F.avg_pool2d(maps.flatten(1, 2), self.pool, ceil_mode=True)
        q = self._split(self.query(self._tokens(halved)))
        memory = self._tokens(pooled)
        k, v = self._split(self.key(memory)), self._split(self.value(memory))
        logits = (q * self.scale) @ k.transpose(-2, -1)
        if self.fuse is not None and message is not None:
            before = _resample(message, (height, width))
            logits = self.fuse(torch.cat([logits, before], 1))
        attended = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        out = self.project(attended).view(batch, tasks, height, width, channels)
        return out.permute(0, 1, 4, 2, 3), logits.unflatten(2, (tasks, height, width))

    def _tokens(self, maps: Tensor) -> Tensor:
        """(B, T·C, h, w) → (B, T·h·w, C)."""
        by_task: Tensor = maps.unflatten(1, (self.tasks, -1))
        return by_task.flatten(3).transpose(2, 3).flatten(1, 2)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, C) → (B, heads, N, C/heads)."""
        by_head: Tensor = tokens.unflatten(2, (self.heads, -1))
        return by_head.transpose(1, 2)


def _resample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, heads, T, h, w, M) on another grid of queries: (B, heads, T·h'·w', M)."""
    batch, heads, tasks, height, width, keys = logits.shape
    grid = logits.permute(0, 1, 2, 5, 3, 4).reshape(batch, -1, height, width)
    moved = resize(grid, size).view(batch, heads, tasks, keys, *size)
    return moved.permute(0, 1, 2, 4, 5, 3).reshape(batch, heads, -1, keys)


class InvPTStage(nn.Module):
    """One transformer block on all tasks' maps: `JointAttention` and an MLP, with residuals.

    Shapes: (B, T, C, h, w) → (B, T, C, h, w).

    Args:
        tasks: T.
        channels: C.
        index: of the stage, from 0; keys are averaged over 2^(index+1) positions a side, so that
            all stages have the same number of them.
        heads: attention heads.
        message: whether logits of the stage before come in.
        drop_path: rate of stochastic depth.
    """

    def __init__(
        self,
        tasks: int,
        channels: int,
        *,
        index: int,
        heads: int = 2,
        message: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = JointAttention(
            tasks, channels, pool=2 ** (index + 1), heads=heads, message=message
        )
        self.drop_path = DropPath(drop_path)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, maps: Tensor, message: Tensor | None) -> tuple[Tensor, Tensor]:
        """Maps of the same shape, and the logits for the next stage.

        Args:
            maps: of all tasks.
            message: logits of the stage before, or None.
        """
        attended, logits = self.attention(_on_channels(self.norm, maps), message)
        full = resize(attended.flatten(1, 2), map_size(maps)).view(maps.shape)
        maps = maps + self.drop_path(full)
        return maps + self.drop_path(_on_channels(self.mlp, maps)), logits


def _on_channels(module: nn.Module, maps: Tensor) -> Tensor:
    """A module for (..., C) on (B, T, C, h, w)."""
    out: Tensor = module(maps.movedim(2, -1)).movedim(-1, 2)
    return out


class StageNorm(nn.Module):
    """One layer norm over the channels of all tasks together, as at the end of every stage.

    Shapes: (B, T, C, h, w) → the same.

    Args:
        tasks: T.
        channels: C.
    """

    def __init__(self, tasks: int, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(tasks * channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalised maps."""
        out: Tensor = self.norm(maps.flatten(1, 2)).view(maps.shape)
        return out
