"""What an encoder gives and a decoder takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from mtl_core.errors import ArgumentError


@dataclass(frozen=True)
class FeatureInfo:
    """Shapes of the feature maps, known before any input is seen.

    Args:
        channels: C of each map, fine to coarse.
        strides: input pixels per position of each map (1 for vectors), same length.
        size: height and width of the inputs where they are fixed at construction, else None.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check that both tuples have one entry a map."""
        if not self.channels or len(self.channels) != len(self.strides):
            raise ArgumentError(
                "channels and strides", "have one entry a map", (self.channels, self.strides)
            )


@dataclass(frozen=True)
class Features:
    """Shared representation of a batch.

    Args:
        maps: feature maps (B, C_l, H_l, W_l), or vectors (B, D), in the order of `FeatureInfo`.
        size: height and width (H, W) of the inputs; (1, 1) for vectors.
        tokens: (B, N, D) sequence including class and prompt tokens, where the encoder has one.
        aux: further scalar losses of the encoder by name, never balanced (router load and the
            like).
    """

    maps: list[Tensor]
    size: tuple[int, int] = (1, 1)
    tokens: Tensor | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Every tensor through which decoders depend on the encoder; the border of the cut."""
        return [*self.maps, *([] if self.tokens is None else [self.tokens])]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Self:
        """The same features holding other tensors, ordered as `tensors`; no auxiliary losses."""
        count = len(self.maps)
        tokens = None if self.tokens is None else tensors[count]
        return replace(self, maps=list(tensors[:count]), tokens=tokens, aux={})

    def cut(self) -> Self:
        """Detached views that require gradients: one task's side of the border."""
        return self.with_tensors([t.detach().requires_grad_() for t in self.tensors()])
