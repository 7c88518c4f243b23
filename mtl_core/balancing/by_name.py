"""Options that are given task by task, by name."""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.errors import UnknownNameError

V = TypeVar("V", float, str)


class ByName(Generic[V]):
    """Values by entry. A task's name stands for all its groups; an entry's own name comes first.

    Args:
        argument: what the user wrote them for, for errors.
        given: values by name; None for none.
        default: of everything that is not named.
    """

    def __init__(self, argument: str, given: Mapping[str, V] | None, default: V) -> None:
        self.argument = argument
        self.given: dict[str, V] = dict(given or {})
        self.default: V = default

    def check(self, entries: Iterable[str]) -> None:
        """Refuse names that the run does not have.

        Raises:
            UnknownNameError: a name is neither an entry nor a task.
        """
        known = {name for entry in entries for name in (entry, _task(entry))}
        for name in self.given:
            if name not in known:
                raise UnknownNameError(self.argument, name, known)

    def value(self, entry: str) -> V:
        """The value of one entry."""
        for name in (entry, _task(entry)):
            if name in self.given:
                return self.given[name]
        return self.default

    def tensor(self, step: Step) -> Tensor:
        """Numbers (T,) float64 of the entries present."""
        return torch.tensor([float(self.value(e)) for e in step.entries], dtype=torch.float64)


def _task(entry: str) -> str:
    return entry.partition("/")[0]


def check_choice(argument: str, value: str, known: Iterable[str]) -> None:
    """Refuse an option that is not among the known ones.

    Raises:
        UnknownNameError: it is not.
    """
    names = tuple(known)
    if value not in names:
        raise UnknownNameError(argument, str(value), names)
