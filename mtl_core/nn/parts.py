"""Which parameters are shared, and which belong to one task."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from torch import nn

from mtl_core.types import TaskName


class ParameterSplit(NamedTuple):
    """Trainable parameters of a network.

    Args:
        shared: those that do not serve exactly one task, in a fixed order.
        own: those of each task.
    """

    shared: list[nn.Parameter]
    own: dict[TaskName, list[nn.Parameter]]

    def all_own(self) -> list[nn.Parameter]:
        """Every task's own parameters, in the order of the tasks."""
        return [p for parameters in self.own.values() for p in parameters]


class SharedNetwork(Protocol):
    """What a balancer asks of a network; `MultiTaskNetwork` and `Balanced` answer."""

    @property
    def tasks(self) -> Mapping[TaskName, Any]:
        """Tasks by name."""

    def split_parameters(self) -> ParameterSplit:
        """The parameters that are trainable now."""

    def independent_decoders(self) -> bool:
        """Whether tasks meet only in the encoder's features."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters by dotted name."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All modules by dotted name."""
