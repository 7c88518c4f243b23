"""State of the Jacobian's size: one row an entry."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_core.errors import BalancerError


class RowState:
    """A (T, n) tensor for all entries of a run, zeros when the first rows come, of their type.

    Args:
        entries: T.
    """

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.values: Tensor | None = None

    def read(self, rows: Tensor, present: Tensor) -> Tensor:
        """State (P, n) of the entries at `present` (P,), where `rows` (P, n) live.

        The state itself where all entries are present, a copy elsewhere: change it in place and
        hand it to `write`.
        """
        if self.values is None:
            self.values = rows.new_zeros(self.entries, rows.shape[1])
        if self.values.shape[1] != rows.shape[1]:
            raise BalancerError(
                f"the state kept for {self.values.shape[1]} shared numbers does not fit the "
                f"{rows.shape[1]} of this batch. Keep the set of trainable shared parameters fixed "
                "during a fit."
            )
        if self.values.device != rows.device or self.values.dtype != rows.dtype:
            self.values = self.values.to(rows)
        if len(present) == self.entries:
            return self.values
        return self.values[present.to(rows.device)]

    def write(self, values: Tensor, present: Tensor) -> None:
        """Keep (P, n) new state of the entries at `present`."""
        assert self.values is not None
        if len(present) == self.entries:
            self.values = values
        else:
            self.values[present.to(values.device)] = values


def row_norms(rows: Tensor) -> Tensor:
    """Lengths (T,) of rows (T, n), float64 on their device: squares do not under- or overflow."""
    found: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return found


def state_of(states: Sequence[RowState]) -> list[Tensor]:
    """Tensors of several states for a checkpoint; empty before the first rows."""
    return [s.values for s in states if s.values is not None]


def load_into(states: Sequence[RowState], values: Sequence[Tensor]) -> None:
    """Take them back."""
    found = list(values) if values else [None] * len(states)
    for state, value in zip(states, found, strict=True):
        state.values = None if value is None else value.clone()
