"""A rotation of the features in front of every task's decoder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.nn.decoder import Decoded
from mtl_core.nn.features import Features
from mtl_core.nn.network import MultiTaskNetwork, Outputs
from mtl_core.tasks.base import Task
from mtl_core.types import Inputs, Predictions, TaskName

InnerNetwork = Callable[[Mapping[TaskName, Task]], MultiTaskNetwork]


def rotations(angles: Tensor, size: int) -> Tensor:
    """Rotation matrices (..., k, k) as exponentials of skew-symmetric ones.

    Args:
        angles: (..., k (k - 1) / 2) entries above the diagonal, row by row. Zeros give the
            identity.
        size: k.
    """
    skew = angles.new_zeros(*angles.shape[:-1], size, size)
    above = torch.triu_indices(size, size, 1, device=angles.device)
    skew[..., above[0], above[1]] = angles
    found: Tensor = torch.linalg.matrix_exp(skew - skew.transpose(-2, -1))
    return found


def rotate(tensor: Tensor, rotation: Tensor, axis: int) -> Tensor:
    """Rotate the first k channels of a tensor along `axis`; the others stay.

    Args:
        tensor: at least k along `axis`.
        rotation: (k, k).
        axis: of the channels.
    """
    moved = tensor.movedim(axis, -1)
    size = len(rotation)
    turned = moved[..., :size] @ rotation.to(moved.dtype).t()
    rest = moved[..., size:]
    whole = turned if not rest.shape[-1] else torch.cat([turned.to(rest.dtype), rest], -1)
    return whole.movedim(-1, axis)


class Rotated(MultiTaskNetwork):
    """Any network whose decoders see the features through a rotation of their own.

    The structure that RotoGrad (Javaloy and Valera, ICLR 2022) trains; without
    `mtl_core.balancing.RotoGrad` the rotations stay the identity. They are buffers, hence part of
    checkpoints and of saved networks, and no optimiser of the model's moves them. The first
    `latent_size` channels of every tensor of the border are rotated, a rotation a task and tensor,
    alike at all positions.

    Shapes: those of the inner network.

    Args:
        tasks: records by name.
        network: builds the inner network from the tasks; one whose decoders meet only in the
            features. In YAML its ``class_path`` and ``init_args``, in Python the class itself or a
            `functools.partial` of it.
        latent_size: k, at least 2 and at most the channels of every tensor of the border.
        tensors: how many tensors the border has: feature maps, and tokens if there are any.

    Raises:
        ArgumentError: the inner network has no border or runs its decoders in a way of its own; in
            a forward pass, if the border does not look as declared.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        network: InnerNetwork,
        latent_size: int,
        tensors: int = 1,
    ) -> None:
        super().__init__(tasks)
        if latent_size < 2:
            raise ArgumentError("latent_size", "be at least 2", latent_size)
        if tensors < 1:
            raise ArgumentError("tensors", "be at least 1", tensors)
        self.network = network(self.tasks)
        kind = type(self.network)
        if not self.network.border or kind.run is not MultiTaskNetwork.run:
            raise ArgumentError(
                "network", "build a network whose decoders meet only in the features", kind.__name__
            )
        # The inner network's own passes (and what they do after its decoders) see rotated features.
        self.network.decode = self._decode_rotated  # type: ignore[method-assign]
        self.latent_size = latent_size
        count = latent_size * (latent_size - 1) // 2
        angles = torch.zeros(len(self.tasks), tensors, count)
        self.register_buffer("angles", angles)
        self.register_buffer("rotation", rotations(angles, latent_size), persistent=False)
        self.angles: Tensor
        self.rotation: Tensor

    @torch.no_grad()
    def turn(self, angles: Tensor) -> None:
        """Set all rotations.

        Args:
            angles: (T, tensors, k (k - 1) / 2), see `rotations`.
        """
        self.angles.copy_(angles)
        self.rotation.copy_(rotations(self.angles.float(), self.latent_size))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.turn(self.angles)

    def rotated(self, features: Features, task: TaskName) -> Features:
        """The features as one task's decoder sees them."""
        tensors = features.tensors()
        if len(tensors) != self.angles.shape[1]:
            raise ArgumentError(
                "tensors", f"be {len(tensors)} for this network", self.angles.shape[1]
            )
        turns = self.rotation[list(self.tasks).index(task)]
        turned = []
        for i, (tensor, turn) in enumerate(zip(tensors, turns, strict=True)):
            axis = channel_axis(features, i)
            if tensor.shape[axis] < self.latent_size:
                raise ArgumentError(
                    "latent_size", f"be at most {tensor.shape[axis]}", self.latent_size
                )
            turned.append(rotate(tensor, turn, axis))
        return features.with_tensors(turned)

    def _decode_rotated(self, features: Features, task: TaskName) -> Tensor | Decoded:
        return type(self.network).decode(self.network, self.rotated(features, task), task)

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """The inner network's features, not rotated."""
        return self.network.encode(inputs, tags)

    def decode(self, features: Features, task: TaskName) -> Tensor | Decoded:
        """One task's raw prediction from features that are not rotated yet."""
        return self._decode_rotated(features, task)

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """Those of the inner network."""
        return self.network.decoder_modules(task)

    def learning_rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Those of the inner network."""
        return self.network.learning_rates()

    def run(
        self,
        inputs: Inputs,
        *,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
        cut: bool = False,
    ) -> Outputs:
        """The inner network's pass; the cut is in front of the rotations."""
        return self.network.run(inputs, tasks=tasks, tags=tags, cut=cut)

    def forward(
        self,
        inputs: Inputs,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
    ) -> Predictions:
        """The inner network's predictions."""
        predictions: Predictions = self.network(inputs, tasks, tags)
        return predictions

    def compiled_parts(self) -> list[nn.Module]:
        """Those of the inner network."""
        return self.network.compiled_parts()


def channel_axis(features: Features, index: int) -> int:
    """Axis of the channels of a tensor of the border: the second of maps, the last of tokens."""
    return 1 if index < len(features.maps) else -1
