"""The contract of encoders: images in, shared features out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import FeatureInfo, Features


class Encoder(nn.Module, ABC):
    """Images → `Features`. A subclass says in `info` what it will give before it sees any image.

    Args:
        info: channels and strides of the maps, and the input size where it is fixed.
    """

    def __init__(self, info: FeatureInfo) -> None:
        super().__init__()
        self.info = info

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Features of images (B, 3, H, W)."""

    def check_size(self, images: Tensor) -> None:
        """Raise `ArgumentError` if images (B, 3, H, W) differ from a fixed size."""
        found = (images.shape[-2], images.shape[-1])
        if self.info.size is not None and found != self.info.size:
            raise ArgumentError(
                "inputs", f"have the height and width that img_size fixes, {self.info.size}", found
            )


EncoderFactory: TypeAlias = Callable[[], Encoder]
"""Builds an encoder; in a config a ``class_path`` with ``init_args``."""
