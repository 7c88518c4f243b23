"""Hard parameter sharing: one encoder, one decoder per task. The baseline of every table."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import Decoded, Features, MultiTaskNetwork
from mtl_core.tasks import Task
from mtl_core.types import Inputs, Predictions, TaskName
from mtl_vision.decoders import DecoderFactory, FPNDecoder, build_decoders
from mtl_vision.decoders.blocks import resize
from mtl_vision.encoders import EncoderFactory, build_encoder


class HardSharing(MultiTaskNetwork):
    """One shared encoder and independent decoders (Caruana, 1997).

    The "MTL baseline" of the dense literature. With one task it is the single-task model that Δm
    is measured against.

    Shapes: images (B, 3, H, W) → for a dense task (B, C, H, W), otherwise (B, C). `run` keeps the
    decoders' own resolution.

    Args:
        tasks: records by name.
        encoder: a timm name, or a class with its ``init_args`` (`TimmEncoder` for all its options,
            or your own subclass of `mtl_vision.encoders.Encoder`).
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        decoder: of every dense task. Tasks of whole images take `mtl_core.nn.LinearDecoder`.
        decoders: exceptions by task name.

    Raises:
        UnknownNameError: the encoder, or a task named in `decoders`, does not exist.

    Example:
        >>> from functools import partial
        >>> import torch
        >>> from mtl_core.tasks import Classification
        >>> from mtl_vision.tasks import DepthEstimation
        >>> tasks = {"depth": DepthEstimation(), "scene": Classification(num_classes=5)}
        >>> network = HardSharing(tasks, encoder="resnet10t", decoder=partial(FPNDecoder, width=16))
        >>> {name: tuple(p.shape) for name, p in network(torch.rand(2, 3, 64, 96)).items()}
        {'depth': (2, 1, 64, 96), 'scene': (2, 5)}
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        decoder: DecoderFactory = FPNDecoder,
        decoders: dict[TaskName, DecoderFactory] | None = None,
    ) -> None:
        super().__init__(tasks)
        self.encoder = build_encoder(encoder, pretrained=pretrained, img_size=img_size)
        self.decoders = build_decoders(self.encoder.info, self.tasks, decoder, decoders)

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Shared features of images (B, 3, H, W). Tags are not used."""
        if not isinstance(inputs, Tensor):
            raise ArgumentError("inputs", "be one image tensor (B, 3, H, W)", sorted(inputs))
        features: Features = self.encoder(inputs)
        return features

    def decode(self, features: Features, task: TaskName) -> Tensor | Decoded:
        """Raw prediction of one task: (B, C, h, w) at its decoder's resolution, or (B, C)."""
        decoded: Tensor | Decoded = self.decoders[task](features)
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's decoder."""
        return [self.decoders[task]]

    def forward(
        self,
        inputs: Inputs,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
    ) -> Predictions:
        """Raw predictions by task name, dense ones resampled to the input's height and width."""
        predictions = super().forward(inputs, tasks, tags)
        assert isinstance(inputs, Tensor)
        size = (inputs.shape[-2], inputs.shape[-1])
        return {
            name: resize(prediction, size) if self.tasks[name].dense else prediction
            for name, prediction in predictions.items()
        }
