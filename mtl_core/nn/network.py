"""The contract of every network: tasks in, predictions by task name out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from mtl_core.errors import UnknownNameError
from mtl_core.nn.decoder import Decoded
from mtl_core.nn.features import Features
from mtl_core.nn.parts import ParameterSplit
from mtl_core.nn.recorded import RecordsArguments
from mtl_core.tasks.base import Task, check_tasks
from mtl_core.types import Inputs, Predictions, TaskName


@dataclass
class Outputs:
    """Everything that a forward pass gives to a training step.

    Args:
        predictions: raw prediction by task, at the decoder's own resolution.
        intermediate: supervised intermediate predictions by task.
        features: what the encoder gave; None where the network has no border.
        cut: each task's side of the border, where it was asked for; its tensors collect gradients.
        aux: scalar losses by name that are added to the sum and never balanced.
    """

    predictions: Predictions
    intermediate: dict[TaskName, tuple[Tensor, ...]] = field(default_factory=dict)
    features: Features | None = None
    cut: dict[TaskName, Features] = field(default_factory=dict)
    aux: dict[str, Tensor] = field(default_factory=dict)


class MultiTaskNetwork(nn.Module, ABC, RecordsArguments):
    """One network for several tasks: an encoder, and one decoder per task behind a border.

    A plain module, usable, mergeable and exportable without Lightning; it remembers its arguments,
    so that `mtl_core.hub.save_pretrained` can write it. A subclass writes `encode` and `decode`;
    one whose decoders exchange features, or whose encoder depends on the task, sets ``border`` to
    False and overrides `run`.

    Args:
        tasks: records by name; their order is the order of tasks everywhere.
    """

    border: ClassVar[bool] = True
    """Whether a task depends on the encoder only through its own copy of the features."""

    def __init__(self, tasks: Mapping[TaskName, Task]) -> None:
        super().__init__()
        check_tasks(tasks)
        self.tasks = dict(tasks)

    @abstractmethod
    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Shared features of a batch. `tags` maps a level (domain, camera) to indices (B,)."""

    @abstractmethod
    def decode(self, features: Features, task: TaskName) -> Tensor | Decoded:
        """One task's raw prediction (B, C, ...)."""

    @abstractmethod
    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The modules that serve only `task`; all other parameters are shared."""

    def select(self, tasks: Sequence[TaskName] | None) -> tuple[TaskName, ...]:
        """The asked-for tasks in the network's order; None means all. Unknown names raise."""
        if tasks is None:
            return tuple(self.tasks)
        for name in tasks:
            if name not in self.tasks:
                raise UnknownNameError("tasks", name, self.tasks)
        return tuple(name for name in self.tasks if name in set(tasks))

    def run(
        self,
        inputs: Inputs,
        *,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
        cut: bool = False,
    ) -> Outputs:
        """Forward pass with everything a training step needs.

        Args:
            inputs: (B, ...) tensor, or tensors by name (mixed-type columns, two-sided batches).
            tasks: names to predict, None for all; no other decoder runs.
            tags: optional indices (B,) by level.
            cut: give every decoder its own detached copy of the features. Ignored without a border.
        """
        features = self.encode(inputs, tags)
        out = Outputs({}, features=features, aux=dict(features.aux))
        for name in self.select(tasks):
            side = features
            if cut and self.border:
                side = out.cut[name] = features.cut()
            decoded = self.decode(side, name)
            if isinstance(decoded, Decoded):
                out.predictions[name] = decoded.prediction
                if decoded.intermediate:
                    out.intermediate[name] = decoded.intermediate
            else:
                out.predictions[name] = decoded
        return out

    def forward(
        self,
        inputs: Inputs,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
    ) -> Predictions:
        """Raw predictions (B, C, ...) by task name."""
        return self.run(inputs, tasks=tasks, tags=tags).predictions

    def split_parameters(self) -> ParameterSplit:
        """Trainable parameters, shared and by task."""
        owners = self._owners()
        shared: list[nn.Parameter] = []
        own: dict[TaskName, list[nn.Parameter]] = {name: [] for name in self.tasks}
        for parameter in self.parameters():
            if parameter.requires_grad:
                serves = owners.get(id(parameter), set())
                place = own[next(iter(serves))] if len(serves) == 1 else shared
                place.append(parameter)
        return ParameterSplit(shared, own)

    def shared_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters that do not belong to exactly one task, in a fixed order."""
        return self.split_parameters().shared

    def task_parameters(self, task: TaskName) -> list[nn.Parameter]:
        """Trainable parameters that serve only `task`."""
        return self.split_parameters().own[task]

    def required_tasks(self, task: TaskName) -> tuple[TaskName, ...]:
        """Tasks whose modules a prediction of `task` needs, itself included.

        More than one where tasks exchange features; default: the task alone.
        """
        return self.select([task])

    def learning_rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Parameters that learn at a multiple of the optimiser's rate, with that multiple.

        Default: none. `mtl_core.modules.MultiTaskModule` makes each entry a parameter group.
        """
        return []

    def independent_decoders(self) -> bool:
        """Whether the border holds: tasks meet only in the encoder's features."""
        return self.border and all(len(tasks) == 1 for tasks in self._owners().values())

    def _owners(self) -> dict[int, set[TaskName]]:
        owners: dict[int, set[TaskName]] = {}
        for task in self.tasks:
            for module in self.decoder_modules(task):
                for parameter in module.parameters():
                    owners.setdefault(id(parameter), set()).add(task)
        return owners

    def compiled_parts(self) -> list[nn.Module]:
        """Modules that `torch.compile` takes one by one, so that the cut stays between them.

        Default: every decoder, and every direct child that holds none.
        """
        decoders = [m for task in self.tasks for m in self.decoder_modules(task)]
        inside = {id(sub) for m in decoders for sub in m.modules()}
        trunk = [c for c in self.children() if not any(id(sub) in inside for sub in c.modules())]
        return [*trunk, *decoders]
