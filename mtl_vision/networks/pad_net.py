"""PAD-Net: predict every task, then distil the features of all tasks into each."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtl_core.nn import Decoded, Features
from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_vision.decoders.blocks import Norm, map_size, resize
from mtl_vision.decoders.distillation import Distillation
from mtl_vision.decoders.residual import Bottleneck
from mtl_vision.encoders import EncoderFactory
from mtl_vision.networks.joint import JointNetwork, check_auxiliary


class PADNet(JointNetwork):
    """Prediction and distillation (Xu et al., CVPR 2018), with any encoder.

    Two bottlenecks a task make features F_t of the encoder's last map, from which a 1×1 convolution
    makes an initial prediction, supervised like the final one and with the same weight. Then
    G_t = F_t + Σ_{a≠t} σ(conv(F_a)) ⊙ conv'(F_a) with a gate and a message for every pair of tasks,
    and two bottlenecks and a 1×1 convolution make the final prediction.

    All F_t are shared parameters, as they feed every task; initial prediction, messages and final
    layers are a task's own. Asked for some tasks it makes the F_t of all, and the rest for these.
    The messages cost 18·T·(T-1)·width² multiply-accumulates a position.

    Shapes: images (B, 3, H, W) → (B, C, H, W) a task; `run` keeps the map's resolution.

    Args:
        tasks: dense tasks by name.
        encoder: a timm name, or a class with its ``init_args``. Residual encoders want
            ``output_stride: 8``.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        width: channels of F_t.
        maps: ``last``: decode the last map; ``all``: all maps, resampled to the finest and
            concatenated, as is usual for HRNet.
        auxiliary: tasks that help the others only: their initial prediction is their prediction.
        norm: ``batch`` or ``group``.

    Raises:
        ArgumentError: a task is not dense, or all are auxiliary.
        UnknownNameError: an auxiliary task is not among the tasks.

    Example:
        >>> from mtl_vision.tasks import DepthEstimation, SemanticSegmentation
        >>> tasks = {"semseg": SemanticSegmentation(num_classes=4), "depth": DepthEstimation()}
        >>> network = PADNet(tasks, encoder="resnet10t", width=32)
        >>> out = network.run(torch.rand(2, 3, 64, 64))
        >>> {name: len(maps) for name, maps in out.intermediate.items()}
        {'semseg': 1, 'depth': 1}
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        width: int = 256,
        maps: Literal["last", "all"] = "last",
        auxiliary: Sequence[TaskName] = (),
        norm: Norm = "batch",
    ) -> None:
        super().__init__(tasks, encoder=encoder, pretrained=pretrained, img_size=img_size)
        self.maps = maps
        self.targets = check_auxiliary(self.tasks, auxiliary)
        channels = self.encoder.info.channels
        source = channels[-1] if maps == "last" else sum(channels)
        self.initial = nn.ModuleDict(
            {
                name: nn.Sequential(
                    Bottleneck(source, width, norm=norm), Bottleneck(width, width, norm=norm)
                )
                for name in self.tasks
            }
        )
        self.initial_heads = nn.ModuleDict(
            {name: nn.Conv2d(width, task.out_channels, 1) for name, task in self.tasks.items()}
        )
        self.distillation = nn.ModuleDict(
            {name: Distillation(len(self.tasks) - 1, width) for name in self.targets}
        )
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    Bottleneck(width, width, norm=norm),
                    Bottleneck(width, width, norm=norm),
                    nn.Conv2d(width, self.tasks[name].out_channels, 1),
                )
                for name in self.targets
            }
        )

    def decode_jointly(
        self, features: Features, tasks: Sequence[TaskName]
    ) -> dict[TaskName, Decoded]:
        """Final and initial predictions (B, C, h, w) of `tasks`."""
        source = self._source(features.maps)
        shared = {name: module(source) for name, module in self.initial.items()}
        found: dict[TaskName, Decoded] = {}
        for name in tasks:
            initial = self.initial_heads[name](shared[name])
            if name in self.targets:
                others = [f for other, f in shared.items() if other != name]
                distilled = self.distillation[name](shared[name], others)
                found[name] = Decoded(self.heads[name](distilled), (initial,))
            else:
                found[name] = Decoded(initial)
        return found

    def _source(self, maps: Sequence[Tensor]) -> Tensor:
        if self.maps == "last":
            return maps[-1]
        size = map_size(maps[0])
        return torch.cat([resize(m, size) for m in maps], 1)

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """Initial head, distillation and final head of the task."""
        own = [self.initial_heads[task]]
        if task in self.targets:
            own += [self.distillation[task], self.heads[task]]
        return own
