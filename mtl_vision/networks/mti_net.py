"""MTI-Net: distillation between tasks at every scale, carried from coarse to fine."""

from collections.abc import Mapping, Sequence
from math import log2
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from mtl_core.nn import Decoded, Features
from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_vision.decoders.blocks import Norm, conv_block, map_size, resize
from mtl_vision.decoders.distillation import Distillation
from mtl_vision.decoders.pyramid import rescale_block
from mtl_vision.decoders.residual import BasicBlock, Bottleneck
from mtl_vision.encoders import EncoderFactory
from mtl_vision.networks.joint import JointNetwork, check_auxiliary


class FeaturePropagation(nn.Module):
    """What a scale hands to the next finer one: every task's features, refined by all tasks'.

    A bottleneck on the concatenated features gives logits of every task and channel; a softmax over
    the tasks makes them masks. The masked features are reduced to C channels by a basic block, and
    every task adds its own squeeze-and-excitation of the result to its features.

    Shapes: T maps (B, C, h, w) → T maps (B, C, h, w).

    Args:
        tasks: T.
        channels: C.
        norm: ``batch`` or ``group``.
    """

    def __init__(self, tasks: int, channels: int, *, norm: Norm = "batch") -> None:
        super().__init__()
        self.logits = Bottleneck(tasks * channels, tasks * channels, norm=norm)
        self.reduce = BasicBlock(tasks * channels, channels, norm=norm)
        squeezed = max(4, channels // 16)
        self.excite = nn.ModuleList(SqueezeExcitation(channels, squeezed) for _ in range(tasks))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Refined features, in the same order."""
        together = torch.cat(list(maps), 1)
        batch, _, height, width = together.shape
        by_task = (batch, len(maps), -1, height, width)
        masks = self.logits(together).view(by_task).softmax(1)
        reduced = self.reduce((masks * together.view(by_task)).flatten(1, 2))
        return [m + excite(reduced) for m, excite in zip(maps, self.excite, strict=True)]


class MTINet(JointNetwork):
    """Multi-scale task interaction network (Vandenhende et al., ECCV 2020), with any encoder.

    From the coarsest scale to the finest, two basic blocks a task make features from the encoder's
    map and from what the scale before propagates (`FeaturePropagation`), and a 1×1 convolution an
    initial prediction. At every scale each task distils the others' features as in PAD-Net
    (`mtl_vision.decoders.distillation.Distillation`), and the task's head reads all its scales.
    Initial predictions of all scales are supervised with the task's weight.

    Features and propagation are shared parameters, as they feed every task; initial predictions,
    distillation and head are a task's own. Asked for some tasks it makes all features, and the rest
    for these. Published with HRNet, at strides 4 to 32. The maps of a plain ViT are first spread
    over strides 4, 8, 16, ... by 2×2 transposed convolutions and
    max-pooling.

    Shapes: images (B, 3, H, W) → (B, C, H, W) a task; `run` gives the finest map's resolution.

    Args:
        tasks: dense tasks by name.
        encoder: a timm name, or a class with its ``init_args``.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        width: channels of the finest scale, doubled from scale to scale. None: a pyramid keeps its
            own, which is dear for wide encoders (the propagation has T²·C² weights), and maps of
            one stride get 32. As published, HRNet's are those of `TimmEncoder` with ``model_args:
            {head: none}``.
        auxiliary: tasks that help the others only: the finest of their initial predictions is their
            prediction.
        norm: ``batch`` or ``group``.

    Raises:
        ArgumentError: a task is not dense, or all are auxiliary.
        UnknownNameError: an auxiliary task is not among the tasks.

    Example:
        >>> from mtl_vision.tasks import DepthEstimation, SemanticSegmentation
        >>> tasks = {"semseg": SemanticSegmentation(num_classes=4), "depth": DepthEstimation()}
        >>> network = MTINet(tasks, encoder="resnet10t").eval()
        >>> out = network.run(torch.rand(1, 3, 64, 96))
        >>> [tuple(p.shape[2:]) for p in out.intermediate["depth"]]
        [(16, 24), (8, 12), (4, 6), (2, 3)]
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        width: int | None = None,
        auxiliary: Sequence[TaskName] = (),
        norm: Norm = "batch",
    ) -> None:
        super().__init__(tasks, encoder=encoder, pretrained=pretrained, img_size=img_size)
        self.targets = check_auxiliary(self.tasks, auxiliary)
        info = self.encoder.info
        flat = len(set(info.strides)) == 1
        own_channels = width is None and not flat
        finest = 32 if width is None else width
        channels = [c if own_channels else finest * 2**s for s, c in enumerate(info.channels)]
        self.spread = nn.ModuleList(
            nn.Identity()
            if own_channels
            else rescale_block(own, c, log2(stride / 4) - s if flat else 0, norm)
            for s, (own, c, stride) in enumerate(
                zip(info.channels, channels, info.strides, strict=True)
            )
        )
        self.scales = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: nn.Sequential(
                        BasicBlock(c + sum(channels[s + 1 : s + 2]), c, norm=norm),
                        BasicBlock(c, c, norm=norm),
                    )
                    for name in self.tasks
                }
            )
            for s, c in enumerate(channels)
        )
        self.propagation = nn.ModuleList(
            FeaturePropagation(len(self.tasks), c, norm=norm) for c in channels[1:]
        )
        self.initial_heads = nn.ModuleDict(
            {
                name: nn.ModuleList(nn.Conv2d(c, task.out_channels, 1) for c in channels)
                for name, task in self.tasks.items()
            }
        )
        self.distillation = nn.ModuleDict(
            {
                name: nn.ModuleList(Distillation(len(self.tasks) - 1, c) for c in channels)
                for name in self.targets
            }
        )
        total = sum(channels)
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    conv_block(total, total, kernel=1, norm=norm),
                    nn.Conv2d(total, self.tasks[name].out_channels, 1),
                )
                for name in self.targets
            }
        )

    def decode_jointly(
        self, features: Features, tasks: Sequence[TaskName]
    ) -> dict[TaskName, Decoded]:
        """Final predictions of `tasks`, and their initial ones from fine to coarse."""
        scales = self._propagate(features)
        found: dict[TaskName, Decoded] = {}
        for name in tasks:
            heads = cast("nn.ModuleList", self.initial_heads[name])
            initial = tuple(head(scale[name]) for head, scale in zip(heads, scales, strict=True))
            if name in self.targets:
                found[name] = Decoded(self._aggregate(name, scales), initial)
            else:
                found[name] = Decoded(initial[0], initial[1:])
        return found

    def _propagate(self, features: Features) -> list[dict[TaskName, Tensor]]:
        """Every task's features at every scale, fine to coarse."""
        maps = [spread(m) for spread, m in zip(self.spread, features.maps, strict=True)]
        found: list[dict[TaskName, Tensor]] = []
        for s in reversed(range(len(maps))):
            incoming = dict.fromkeys(self.tasks, maps[s])
            if found:
                carried = self.propagation[s](list(found[0].values()))
                size = map_size(maps[s])
                incoming = {
                    name: torch.cat([maps[s], resize(c, size)], 1)
                    for name, c in zip(self.tasks, carried, strict=True)
                }
            blocks = cast("nn.ModuleDict", self.scales[s])
            found.insert(0, {name: blocks[name](x) for name, x in incoming.items()})
        return found

    def _aggregate(self, task: TaskName, scales: Sequence[dict[TaskName, Tensor]]) -> Tensor:
        """Final prediction from the distilled features of all scales."""
        size = map_size(scales[0][task])
        modules = cast("nn.ModuleList", self.distillation[task])
        distilled = [
            distil(scale[task], [f for other, f in scale.items() if other != task])
            for distil, scale in zip(modules, scales, strict=True)
        ]
        prediction: Tensor = self.heads[task](torch.cat([resize(d, size) for d in distilled], 1))
        return prediction

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """Initial heads, distillation and final head of the task."""
        own = [self.initial_heads[task]]
        if task in self.targets:
            own += [self.distillation[task], self.heads[task]]
        return own
