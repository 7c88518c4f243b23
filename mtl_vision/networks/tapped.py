"""Networks that decode every tap of an encoder on one grid."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from mtl_core.nn import FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_vision.decoders.blocks import map_size, resize
from mtl_vision.encoders import EncoderFactory, build_encoder
from mtl_vision.networks.image import ImageNetwork, image_tensor


class TappedNetwork(ImageNetwork):
    """An encoder whose taps are all brought to one grid, and a decoder that may learn faster.

    Args:
        tasks: records by name.
        encoder: a timm name, or a class with its ``init_args``.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        decoder_lr: multiple of the learning rate for everything but the encoder.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        decoder_lr: float = 1.0,
    ) -> None:
        super().__init__(tasks)
        self.encoder = build_encoder(encoder, pretrained=pretrained, img_size=img_size)
        self.decoder_lr = decoder_lr

    def taps(self, inputs: Inputs) -> Features:
        """All maps of the encoder (B, C_l, h, w) on one grid; no tokens."""
        features: Features = self.encoder(image_tensor(inputs))
        maps = on_one_grid(features, self.encoder.info)
        return replace(features, maps=maps, tokens=None)

    def learning_rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Everything but the encoder at `decoder_lr` times the rate, where that is not 1."""
        if self.decoder_lr == 1.0:
            return []
        encoder = {id(p) for p in self.encoder.parameters()}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in encoder]
        return [(self.decoder_lr, rest)]


def common_stride(info: FeatureInfo) -> int:
    """The stride of the grid: the coarsest one up to 16, or the finest where all are coarser.

    Args:
        info: shapes of the maps.
    """
    fine = [stride for stride in info.strides if stride <= 16]
    return max(fine) if fine else min(info.strides)


def on_one_grid(features: Features, info: FeatureInfo) -> list[Tensor]:
    """All maps, bilinear, at the size of the one that has the `common_stride`.

    Args:
        features: maps (B, C_l, h_l, w_l).
        info: their shapes.
    """
    size = map_size(features.maps[info.strides.index(common_stride(info))])
    return [resize(maps, size) for maps in features.maps]
