"""InvPT: attention over all tasks and positions at growing resolution."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import Decoded, FeatureInfo, Features
from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_vision.decoders.blocks import conv_block, resize
from mtl_vision.decoders.inverted_pyramid import (
    InvPTStage,
    StageNorm,
    UpEmbedding,
    grouped_block,
)
from mtl_vision.encoders import EncoderFactory
from mtl_vision.networks.joint import JointNetwork

_STAGES = 3


class InvPT(JointNetwork):
    """Inverted pyramid transformer (Ye & Xu, ECCV 2022), with any encoder.

    The last map is resampled to H/`stride` × W/`stride`; two 3×3 convolutions a task make features
    and a 1×1 convolution a supervised preliminary prediction, and both together the task's tokens.
    Three stages follow at this resolution, twice and four times it, with all, half and a quarter of
    `width` channels: an `InvPTStage` of attention between all positions of all tasks, fed with the
    attention logits of the stage before, and from the second on with a map of the encoder. The
    stages' outputs are normalised over all tasks together, resampled to eight times the first
    resolution, summed and read out. Memory of the attention grows with T².

    All but the last layers of a task are shared parameters, and run for any choice of tasks: even
    the layer norm behind a stage mixes tasks, so that nothing else can be left out.

    Shapes: images (B, 3, H, W) → (B, C, H, W) a task; `run` gives 8·H/`stride` × 8·W/`stride`.

    Args:
        tasks: dense tasks by name.
        encoder: a timm name, or a class with its ``init_args``; published with four taps of a plain
            ViT, of which the last three stages take the last, the second and the first.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        stride: pixels per position of the first stage; twice the patch as published. Sizes are
            rounded to whole positions.
        width: channels of the first stage, d_0; a multiple of 4·`heads`.
        feature_width: channels of the features behind the preliminary predictions.
        heads: attention heads.
        drop_path: rate of stochastic depth in the stages, in [0, 1).
        messages: hand attention logits from stage to stage.

    Raises:
        ArgumentError: a task is not dense, or a size does not fit.

    Example:
        >>> from mtl_vision.tasks import DepthEstimation, SemanticSegmentation
        >>> tasks = {"semseg": SemanticSegmentation(num_classes=4), "depth": DepthEstimation()}
        >>> network = InvPT(tasks, encoder="resnet10t", width=32, feature_width=24).eval()
        >>> {name: tuple(p.shape) for name, p in network(torch.rand(1, 3, 64, 96)).items()}
        {'semseg': (1, 4, 64, 96), 'depth': (1, 1, 64, 96)}
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        stride: int = 32,
        width: int = 576,
        feature_width: int = 512,
        heads: int = 2,
        drop_path: float = 0.15,
        messages: bool = True,
    ) -> None:
        super().__init__(tasks, encoder=encoder, pretrained=pretrained, img_size=img_size)
        if stride < 1:
            raise ArgumentError("stride", "be at least 1", stride)
        if heads < 1 or width % (4 * heads):
            raise ArgumentError("width", f"be a multiple of 4 x heads = {4 * heads}", width)
        if not 0 <= drop_path < 1:
            raise ArgumentError("drop_path", "lie in [0, 1)", drop_path)
        self.stride = stride
        info, count = self.encoder.info, len(self.tasks)
        last = info.channels[-1]
        widths = [width // 2**i for i in range(_STAGES)]
        self.features = nn.Sequential(
            conv_block(last, count * last), grouped_block(count, last, feature_width)
        )
        self.initial_heads = nn.ModuleDict(
            {n: nn.Conv2d(feature_width, t.out_channels, 1) for n, t in self.tasks.items()}
        )
        self.tokens = nn.ModuleDict(
            {n: nn.Conv2d(feature_width + t.out_channels, width, 1) for n, t in self.tasks.items()}
        )
        self.embeddings = nn.ModuleList(
            UpEmbedding(count, widths[i - 1], widths[i]) for i in range(1, _STAGES)
        )
        self.skips = nn.ModuleDict(
            {
                str(i): _skip(info, _STAGES - 1 - i, widths[i], stride / 2**i)
                for i in range(1, _STAGES)
                if _STAGES - 1 - i < len(info.channels)
            }
        )
        self.stages = nn.ModuleList(
            InvPTStage(
                count,
                channels,
                index=i,
                heads=heads,
                message=messages and i > 0,
                drop_path=drop_path,
            )
            for i, channels in enumerate(widths)
        )
        self.norms = nn.ModuleList(StageNorm(count, channels) for channels in widths)
        self.widen = nn.ModuleDict(
            {n: nn.ModuleList(nn.Conv2d(w, width, 1) for w in widths[1:]) for n in self.tasks}
        )
        self.heads = nn.ModuleDict(
            {
                n: nn.Sequential(conv_block(width, width), nn.Conv2d(width, t.out_channels, 1))
                for n, t in self.tasks.items()
            }
        )

    def decode_jointly(
        self, features: Features, tasks: Sequence[TaskName]
    ) -> dict[TaskName, Decoded]:
        """Final and preliminary predictions of `tasks`."""
        height, width = (max(1, round(side / self.stride)) for side in features.size)
        last = resize(features.maps[-1], (height, width))
        by_task = self.features(last).unflatten(1, (len(self.tasks), -1)).unbind(1)
        initial, tokens = {}, []
        for name, own in zip(self.tasks, by_task, strict=True):
            initial[name] = self.initial_heads[name](own)
            tokens.append(self.tokens[name](torch.cat([own, initial[name]], 1)))
        outputs = self._climb(torch.stack(tokens, 1), features)
        size = (8 * height, 8 * width)
        names = list(self.tasks)
        return {
            name: Decoded(self._read(name, names.index(name), outputs, size), (initial[name],))
            for name in tasks
        }

    def _climb(self, maps: Tensor, features: Features) -> list[Tensor]:
        """Normalised outputs (B, T, C_i, h_i, w_i) of all stages."""
        outputs: list[Tensor] = []
        message: Tensor | None = None
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if i:
                skip = None
                if str(i) in self.skips:
                    skip = self.skips[str(i)](features.maps[_STAGES - 1 - i])
                maps = self.embeddings[i - 1](maps, skip)
            maps, message = stage(maps, message)
            outputs.append(norm(maps))
        return outputs

    def _read(
        self, task: TaskName, index: int, outputs: Sequence[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """Final prediction (B, C, *size) of one task."""
        first, *rest = (output[:, index] for output in outputs)
        convs = cast("nn.ModuleList", self.widen[task])
        wide = [widen(output) for widen, output in zip(convs, rest, strict=True)]
        total = resize(first, size)
        for output in wide:
            total = total + resize(output, size)
        prediction: Tensor = self.heads[task](total)
        return prediction

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """What of the task lies behind the last norm over all tasks."""
        return [self.widen[task], self.heads[task]]


def _skip(info: FeatureInfo, index: int, width: int, stride: float) -> nn.Module:
    """Projection of an encoder's map for a stage of `stride`: doubled where it is coarser."""
    channels = info.channels[index]
    if info.strides[index] >= 2 * stride:
        return nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1)
    return nn.Conv2d(channels, width, 3, padding=1)
