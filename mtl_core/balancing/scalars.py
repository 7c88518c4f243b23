"""Learned scalars, one an entry, with an optimiser of their own."""

from typing import Any

import torch
from torch import Tensor


class LearnedScalars:
    """Scalars by entry that Adam moves (Kingma and Ba 2015; 0.9, 0.999).

    They are no parameters of the model: neither the user's optimiser nor gradient clipping sees
    them. Every entry counts its own steps, so that absent tasks keep theirs.

    Args:
        entries: how many.
        lr: learning rate.
        init: start of every scalar.
        decay: factor of the L2 term that is added to the gradient.
    """

    def __init__(self, entries: int, *, lr: float, init: float = 0.0, decay: float = 0.0) -> None:
        self.lr = lr
        self.decay = decay
        self.values = torch.full((entries,), init, dtype=torch.float64)
        self._moments = torch.zeros(2, entries, dtype=torch.float64)
        self._count = torch.zeros(entries, dtype=torch.float64)

    def step(self, gradient: Tensor, present: Tensor) -> None:
        """One step down `gradient` (P,) of the entries at `present` (P,) int64."""
        gradient = gradient + self.decay * self.values[present]
        self._count[present] += 1
        first = self._moments[0, present] * 0.9 + gradient * 0.1
        second = self._moments[1, present] * 0.999 + gradient.square() * 0.001
        self._moments[0, present], self._moments[1, present] = first, second
        unbiased = first / (1 - 0.9 ** self._count[present])
        spread = (second / (1 - 0.999 ** self._count[present])).sqrt()
        self.values[present] -= self.lr * unbiased / (spread + 1e-8)

    def state(self) -> dict[str, Any]:
        """Values, moments and counts."""
        return {"values": self.values, "moments": self._moments, "count": self._count}

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.values = state["values"].clone()
        self._moments = state["moments"].clone()
        self._count = state["count"].clone()
