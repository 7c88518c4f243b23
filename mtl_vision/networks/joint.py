"""Networks whose decoders exchange features of all tasks."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.nn import Decoded, Features, Outputs
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_vision.encoders import EncoderFactory, build_encoder
from mtl_vision.networks.image import ImageNetwork, check_dense, image_tensor


class JointNetwork(ImageNetwork):
    """One encoder, and one decoder for all dense tasks together.

    Every prediction depends on modules of every task, so there is no border: asked for some tasks,
    it runs what these need, which is all but the last layers of the others. A subclass writes
    `decode_jointly`.

    Args:
        tasks: dense tasks by name.
        encoder: a timm name, or a class with its ``init_args``.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.

    Raises:
        ArgumentError: a task is not dense.
    """

    border: ClassVar[bool] = False

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(tasks)
        check_dense(self.tasks, type(self).__name__)
        self.encoder = build_encoder(encoder, pretrained=pretrained, img_size=img_size)

    @abstractmethod
    def decode_jointly(
        self, features: Features, tasks: Sequence[TaskName]
    ) -> dict[TaskName, Decoded]:
        """Predictions of `tasks`, in that order, from the features of all."""

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Shared features of images (B, 3, H, W). Tags are not used."""
        features: Features = self.encoder(image_tensor(inputs))
        return features

    def decode(self, features: Features, task: TaskName) -> Decoded:
        """One task's prediction; `decode_jointly` costs less for several."""
        return self.decode_jointly(features, [task])[task]

    def required_tasks(self, task: TaskName) -> tuple[TaskName, ...]:
        """All tasks."""
        super().required_tasks(task)
        return tuple(self.tasks)

    def compiled_parts(self) -> list[nn.Module]:
        """The encoder, and every module of the decoder that is called."""
        return [part for child in self.children() for part in _called(child)]

    def run(
        self,
        inputs: Inputs,
        *,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
        cut: bool = False,
    ) -> Outputs:
        """Forward pass with everything a training step needs; `cut` is ignored.

        Args:
            inputs: images (B, 3, H, W).
            tasks: names to predict, None for all; layers that serve only others do not run.
            tags: not used.
            cut: ignored, there is no border.
        """
        chosen = self.select(tasks)
        features = self.encode(inputs, tags)
        decoded = self.decode_jointly(features, chosen)
        return Outputs(
            {name: decoded[name].prediction for name in chosen},
            intermediate={n: d.intermediate for n, d in decoded.items() if d.intermediate},
            aux=dict(features.aux),
        )


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """The module, or what is inside where it only holds others."""
    if isinstance(module, nn.ModuleDict | nn.ModuleList):
        for child in module.children():
            yield from _called(child)
    else:
        yield module


def check_auxiliary(
    tasks: Mapping[TaskName, Task], auxiliary: Sequence[TaskName]
) -> tuple[TaskName, ...]:
    """The tasks that are not auxiliary, in order.

    Raises:
        UnknownNameError: an auxiliary task is not among the tasks.
        ArgumentError: none is left.
    """
    for name in auxiliary:
        if name not in tasks:
            raise UnknownNameError("auxiliary", name, tasks)
    targets = tuple(name for name in tasks if name not in set(auxiliary))
    if not targets:
        raise ArgumentError("auxiliary", "leave at least one task", list(auxiliary))
    return targets
