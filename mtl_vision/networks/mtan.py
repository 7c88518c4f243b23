"""MTAN: one trunk that every task reads through its own attention masks."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.nn import Decoded, Features
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_vision.decoders import ASPPDecoder, DecoderFactory, build_decoders
from mtl_vision.decoders.blocks import Norm, conv_block, map_size, norm_layer, resize
from mtl_vision.decoders.residual import Bottleneck
from mtl_vision.encoders import EncoderFactory, build_encoder
from mtl_vision.encoders.staged import run_in_stages
from mtl_vision.networks.image import ImageNetwork, image_tensor


class AttentionMask(nn.Sequential):
    """Mask of one task and stage: 1×1, norm, ReLU, 1×1, norm, sigmoid, over a quarter of C.

    Shapes: (B, in_channels, h, w) → (B, channels, h, w), in (0, 1).

    Args:
        in_channels: of what the mask is made from.
        channels: C, of what is masked.
        norm: ``batch`` or ``group``.
    """

    def __init__(self, in_channels: int, channels: int, *, norm: Norm = "batch") -> None:
        inner = max(1, channels // 4)
        super().__init__(
            conv_block(in_channels, inner, kernel=1, norm=norm),
            nn.Conv2d(inner, channels, 1, bias=False),
            norm_layer(norm)(channels),
            nn.Sigmoid(),
        )


class MTAN(ImageNetwork):
    """Multi-task attention network (Liu et al., CVPR 2019), on any encoder that has stages.

    With b_s the input of the last block of stage s and u_s its output, task t has the mask
    m_s = σ(g(b_s, a_{s-1})) and goes on with a_s = pool(refine_s(m_s ⊙ u_s)); its decoder gets all
    m_s ⊙ u_s. `refine_s` is one bottleneck a stage for all tasks. As in the dense survey
    (Vandenhende et al., TPAMI 2021), from which the structure of residual trunks is taken.

    A task's path needs no other task: asked for some, the others' masks and decoders do not run.
    The refinements are shared parameters behind the trunk, so balancers that need tasks to meet in
    the encoder alone refuse this network, and all others take the exact general way. Where all
    stages have one stride (a plain ViT) nothing is pooled.

    Shapes: images (B, 3, H, W) → for a dense task (B, C, H, W), otherwise (B, C).

    Args:
        tasks: records by name.
        encoder: a timm name, or a class with its ``init_args``; see
            `mtl_vision.encoders.run_in_stages` for the families that have stages.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        decoder: of every dense task. Tasks of whole images take `mtl_core.nn.LinearDecoder`.
        decoders: exceptions by task name.
        norm: of masks and refinements, ``batch`` or ``group``.

    Example:
        >>> from mtl_vision.tasks import DepthEstimation, SemanticSegmentation
        >>> tasks = {"semseg": SemanticSegmentation(num_classes=4), "depth": DepthEstimation()}
        >>> network = MTAN(tasks, encoder="resnet18").eval()
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
        decoder: DecoderFactory = ASPPDecoder,
        decoders: dict[TaskName, DecoderFactory] | None = None,
        norm: Norm = "batch",
    ) -> None:
        super().__init__(tasks)
        self.encoder = build_encoder(encoder, pretrained=pretrained, img_size=img_size)
        self._staged = run_in_stages(self.encoder)
        info, before = self.encoder.info, self._staged.before
        # What reaches a stage beside its own input: nothing, then the refined maps of that width.
        inputs = [before[0], *(b + c for b, c in zip(before[1:], info.channels[1:], strict=True))]
        self.masks = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    AttentionMask(i, c, norm=norm)
                    for i, c in zip(inputs, info.channels, strict=True)
                )
                for name in self.tasks
            }
        )
        self.refinements = nn.ModuleList(
            Bottleneck(a, b, norm=norm)
            for a, b in zip(info.channels[:-1], info.channels[1:], strict=True)
        )
        self._pools = [b // a for a, b in zip(info.strides[:-1], info.strides[1:], strict=True)]
        self.decoders = build_decoders(info, self.tasks, decoder, decoders)

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """The trunk's maps b_1, u_1, b_2, u_2, ... of images (B, 3, H, W). Tags are not used."""
        images = image_tensor(inputs)
        pairs = self._staged.pairs(images)
        size = (images.shape[-2], images.shape[-1])
        return Features(maps=[m for pair in pairs for m in pair], size=size)

    def attend(self, features: Features, task: TaskName) -> Features:
        """What the task's decoder gets: the trunk's maps u_s, each masked.

        Args:
            features: as `encode` gives them.
            task: whose masks.
        """
        before, after = features.maps[::2], features.maps[1::2]
        attended: list[Tensor] = []
        carried: Tensor | None = None
        for s, mask in enumerate(self._masks(task)):
            seen = before[s] if carried is None else torch.cat([before[s], carried], 1)
            attended.append(mask(seen) * after[s])
            if s < len(self.refinements):
                carried = self._carry(attended[-1], s, map_size(before[s + 1]))
        return Features(maps=attended, size=features.size)

    def _masks(self, task: TaskName) -> nn.ModuleList:
        return cast("nn.ModuleList", self.masks[task])

    def _carry(self, attended: Tensor, stage: int, size: tuple[int, int]) -> Tensor:
        refined: Tensor = self.refinements[stage](attended)
        if self._pools[stage] > 1:
            refined = F.max_pool2d(refined, self._pools[stage], ceil_mode=True)
        # Encoders differ in how they round odd sizes.
        return resize(refined, size)

    def decode(self, features: Features, task: TaskName) -> Tensor | Decoded:
        """Raw prediction of one task: (B, C, h, w) at its decoder's resolution, or (B, C)."""
        decoded: Tensor | Decoded = self.decoders[task](self.attend(features, task))
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's masks and decoder, and the refinements, which are every task's."""
        return [self.masks[task], self.decoders[task], self.refinements]

    def compiled_parts(self) -> list[nn.Module]:
        """The blocks of the trunk, which run one by one, and every task's modules."""
        masks = [mask for name in self.tasks for mask in self._masks(name)]
        return [*self._staged.units(), *self.refinements, *masks, *self.decoders.values()]
