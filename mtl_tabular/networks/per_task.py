"""An independent network for every task, side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, cast

from torch import Tensor, nn

from mtl_core.nn import Decoded, Features, Outputs
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_tabular.data.schema import NO_COLUMNS, TableSchema
from mtl_tabular.networks.base import TableNetwork
from mtl_tabular.networks.shared_bottom import SharedBottom

TableNetworkFactory = Callable[[Mapping[TaskName, Task]], TableNetwork]


@dataclass(frozen=True)
class FeaturesByTask(Features):
    """Features of several networks.

    Args:
        parts: what every task's own network gave; `maps` holds their tensors.
    """

    parts: dict[TaskName, Features] = field(default_factory=dict)

    def with_tensors(self, tensors: Sequence[Tensor]) -> Self:
        """The same features holding other tensors, ordered as `tensors`."""
        parts, start = {}, 0
        for name, part in self.parts.items():
            end = start + len(part.tensors())
            parts[name] = part.with_tensors(tensors[start:end])
            start = end
        return replace(self, maps=list(tensors), parts=parts, aux={})


class PerTask(TableNetwork):
    """One network per task without anything in common: the single-task comparison in one run.

    Single-task models trained like this stop together and share one seed; for Δm the verb
    ``baselines`` trains every task in a run of its own. There is nothing to balance: methods that
    combine gradients of shared parameters refuse this network.

    Shapes: inputs as in `TableSchema` → (B, C) by task.

    Args:
        tasks: records by name.
        schema: the columns, see `TableNetwork`; every task's network gets it.
        network: builds a network from one task, any `TableNetwork` but this one. In YAML its
            ``class_path`` and ``init_args``, without a schema; in Python the class itself, or a
            `functools.partial` of it.

    Example:
        >>> from functools import partial
        >>> import torch
        >>> from mtl_tabular.data import NumericColumn
        >>> from mtl_tabular.tasks import BinaryTarget, NumericTarget
        >>> schema = TableSchema(numeric=(NumericColumn(name="age"),))
        >>> tasks = {"default": BinaryTarget(), "income": NumericTarget()}
        >>> network = PerTask(tasks, schema=schema, network=partial(SharedBottom, dropout=0.0))
        >>> {n: tuple(p.shape) for n, p in network({"numeric": torch.randn(4, 1)}).items()}
        {'default': (4, 1), 'income': (4, 1)}
    """

    border: ClassVar[bool] = False

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        schema: TableSchema = NO_COLUMNS,
        network: TableNetworkFactory = SharedBottom,
    ) -> None:
        super().__init__(tasks, schema)
        factory = cast("Callable[..., TableNetwork]", network)
        self.networks = nn.ModuleDict(
            {name: factory({name: task}, schema=schema) for name, task in self.tasks.items()}
        )

    def network_of(self, task: TaskName) -> TableNetwork:
        """The network of one task."""
        network = self.networks[task]
        assert isinstance(network, TableNetwork)
        return network

    def run(
        self,
        inputs: Inputs,
        *,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
        cut: bool = False,
    ) -> Outputs:
        """Run the networks of the asked-for tasks; there is no border to cut."""
        out = Outputs({})
        for name in self.select(tasks):
            own = self.network_of(name).run(inputs, tags=tags)
            out.predictions.update(own.predictions)
            out.intermediate.update(own.intermediate)
            out.aux.update({f"{name}_{key}": loss for key, loss in own.aux.items()})
        return out

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Features of every task's network."""
        parts = {name: self.network_of(name).encode(inputs, tags) for name in self.tasks}
        aux = {f"{name}_{key}": loss for name, p in parts.items() for key, loss in p.aux.items()}
        maps = [tensor for part in parts.values() for tensor in part.tensors()]
        return FeaturesByTask(maps, aux=aux, parts=parts)

    def decode(self, features: Features, task: TaskName) -> Tensor | Decoded:
        """Raw prediction (B, C) of one task."""
        assert isinstance(features, FeaturesByTask)
        return self.network_of(task).decode(features.parts[task], task)

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's whole network."""
        return [self.networks[task]]

    def compiled_parts(self) -> list[nn.Module]:
        """Those of every network."""
        return [part for name in self.tasks for part in self.network_of(name).compiled_parts()]
