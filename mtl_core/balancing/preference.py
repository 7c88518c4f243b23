"""Preferences among tasks, by name."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.errors import ArgumentError, UnknownNameError


class Preference:
    """Positive relative weights by entry; entries that are not named have one.

    Args:
        given: weight by name, or None for equal ones.
        argument: what the user wrote them for, for errors.
    """

    def __init__(self, given: Mapping[str, float] | None, *, argument: str = "preference") -> None:
        self.argument = argument
        self.given = dict(given or {})
        for name, value in self.given.items():
            if not 0 < value < float("inf"):
                raise ArgumentError(f"{argument}[{name!r}]", "be positive and finite", value)

    def check(self, entries: Iterable[str]) -> None:
        """Refuse names that the run does not have."""
        known = tuple(entries)
        for name in self.given:
            if name not in known:
                raise UnknownNameError(self.argument, name, known)

    def of(self, step: Step) -> Tensor:
        """(T,) float64 of mean one over the entries present."""
        values = self.raw(step)
        return values * (len(values) / values.sum())

    def raw(self, step: Step) -> Tensor:
        """(T,) float64 as given."""
        return torch.tensor([self.given.get(e, 1.0) for e in step.entries], dtype=torch.float64)
