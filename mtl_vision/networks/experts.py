"""Convolutional experts on one feature map, all of a bank in one or two convolutions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_vision.decoders.blocks import Norm, norm_layer

ExpertKind: TypeAlias = Literal["conv_bn_gelu", "lowrank_linear", "conv1x1"]
"""3×3 or 1×1 convolution with normalisation and GELU; or a low-rank 3×3 convolution, linear."""


class MapExperts(nn.Module, ABC):
    """N experts that all see the same map.

    Shapes: (B, C, h, w) → (B, N, C, h, w).

    Args:
        num_experts: N.
        width: C.
    """

    def __init__(self, num_experts: int, width: int) -> None:
        super().__init__()
        if num_experts < 1:
            raise ArgumentError("num_experts", "be at least 1", num_experts)
        self.num_experts = num_experts
        self.width = width

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """Every expert's map (B, N, C, h, w)."""


class ConvExperts(MapExperts):
    """Convolution, normalisation, GELU: one convolution with N·C channels.

    Args:
        num_experts: N.
        width: C.
        kernel: odd side of the convolution.
        norm: ``batch``, or ``group``, whose groups never reach over two experts.
    """

    def __init__(
        self, num_experts: int, width: int, *, kernel: int = 3, norm: Norm = "batch"
    ) -> None:
        super().__init__(num_experts, width)
        channels = num_experts * width
        self.conv = nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=False)
        layer = norm_layer(norm)(width)
        groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else 0
        self.norm = (
            nn.GroupNorm(num_experts * groups, channels) if groups else nn.BatchNorm2d(channels)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Every expert's map (B, N, C, h, w)."""
        found = F.gelu(self.norm(self.conv(maps)))
        by_expert: Tensor = found.unflatten(1, (self.num_experts, self.width))
        return by_expert


class LowRankExperts(MapExperts):
    """3×3 convolutions C → r_j and 1×1 convolutions r_j → C without anything between.

    The experts of MLoRE (Yang et al., CVPR 2024). As they are linear, any mixture of them is one
    3×3 convolution, whose kernel `fold` gives.

    Args:
        ranks: r_j of every expert.
        width: C.
    """

    def __init__(self, ranks: Sequence[int], width: int) -> None:
        super().__init__(len(ranks), width)
        if min(ranks) < 1:
            raise ArgumentError("ranks", "all be at least 1", tuple(ranks))
        self.ranks = tuple(ranks)
        bounds = [0, *accumulate(self.ranks)]
        self._spans = tuple(pairwise(bounds))
        # Which expert every channel between the convolutions belongs to.
        owner = torch.tensor([j for j, rank in enumerate(self.ranks) for _ in range(rank)])
        self.register_buffer("owner", owner, persistent=False)
        self.owner: Tensor
        self.down = nn.Conv2d(width, sum(self.ranks), 3, padding=1, bias=False)
        self.up = nn.Conv2d(sum(self.ranks), width, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Every expert's map (B, N, C, h, w)."""
        low = self.down(maps)
        return torch.stack(
            [F.conv2d(low[:, a:b], self.up.weight[:, a:b]) for a, b in self._spans], 1
        )

    def mixed(self, maps: Tensor, gates: Tensor) -> Tensor:
        """Σ_j g_j E_j (B, C, h, w) without a map an expert.

        Args:
            maps: (B, C, h, w).
            gates: g (B, N); zeros leave an expert out.
        """
        low = self.down(maps)
        scaled = low * gates.to(low.dtype).index_select(1, self.owner)[..., None, None]
        found: Tensor = self.up(scaled)
        return found

    def fold(self, gates: Tensor) -> Tensor:
        """Kernels (..., C, C, 3, 3) of the one convolution that Σ_j g_j E_j is.

        Args:
            gates: g (..., N).
        """
        weights = gates.to(self.up.weight.dtype)[..., None, self.owner]
        flat = (self.up.weight.flatten(1) * weights) @ self.down.weight.flatten(1)
        kernels: Tensor = flat.unflatten(-1, self.down.weight.shape[1:])
        return kernels


def default_ranks(num_experts: int, width: int) -> tuple[int, ...]:
    """The rank grid of MLoRE's PASCAL models carried over to any N and C.

    Ranks grow evenly from C/40 to C/5, at least 1: 16, 24, ..., 128 for 15 experts at 640 channels.
    """
    low, high = width / 40, width / 5
    steps = max(num_experts - 1, 1)
    return tuple(max(1, round(low + (high - low) * i / steps)) for i in range(num_experts))


def build_experts(
    kind: ExpertKind,
    num_experts: int,
    width: int,
    *,
    ranks: Sequence[int] | None = None,
    norm: Norm = "batch",
) -> MapExperts:
    """A bank of experts.

    Args:
        kind: of the experts.
        num_experts: N.
        width: C.
        ranks: of low-rank experts, one each; None: `default_ranks`.
        norm: of the others.

    Raises:
        ArgumentError: the ranks are not N, or are given to experts that have none.
    """
    if kind == "lowrank_linear":
        chosen = default_ranks(num_experts, width) if ranks is None else tuple(ranks)
        if len(chosen) != num_experts:
            raise ArgumentError("ranks", f"be one for each of {num_experts} experts", chosen)
        return LowRankExperts(chosen, width)
    if ranks is not None:
        raise ArgumentError("ranks", "be left out where experts are not lowrank_linear", kind)
    return ConvExperts(num_experts, width, kernel=1 if kind == "conv1x1" else 3, norm=norm)
