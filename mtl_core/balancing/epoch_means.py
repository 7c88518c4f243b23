"""Mean losses over epochs, by entry."""

from typing import Any

import torch
from torch import Tensor


class EpochMeans:
    """Mean loss of every entry in its last two finished epochs, and in its first one.

    An entry's epoch is finished once a later one has begun, so that absent tasks keep what they
    have and an epoch without a task's labels does not count for it. Losses are means over ranks
    already; every window counts the same.

    Args:
        entries: how many.
        first: epoch from which on losses count.
    """

    def __init__(self, entries: int, *, first: int = 0) -> None:
        self.first = first
        self.sums = torch.zeros(entries, dtype=torch.float64)
        self.counts = torch.zeros(entries, dtype=torch.float64)
        self.epochs = torch.full((entries,), -1, dtype=torch.int64)
        self.means = torch.full((3, entries), torch.nan, dtype=torch.float64)

    def add(self, losses: Tensor, present: Tensor, epoch: int) -> None:
        """Add losses (T,) of the entries at `present` in an epoch."""
        if epoch < self.first:
            return
        self.means[:, present] = self.finished(present, epoch)
        begun = self.epochs[present] == epoch
        self.sums[present] = torch.where(begun, self.sums[present], 0.0) + losses
        self.counts[present] = torch.where(begun, self.counts[present], 0.0) + 1
        self.epochs[present] = epoch

    def finished(self, present: Tensor, epoch: int) -> Tensor:
        """Means (3, T) as they stand in `epoch`: last, last but one, first; NaN where none is."""
        last, older, first = self.means[:, present]
        over = (self.epochs[present] >= 0) & (self.epochs[present] < epoch)
        mean = self.sums[present] / self.counts[present].clamp_min(1)
        return torch.stack(
            [
                torch.where(over, mean, last),
                torch.where(over, last, older),
                torch.where(over & first.isnan(), mean, first),
            ]
        )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "sums": self.sums,
            "counts": self.counts,
            "epochs": self.epochs,
            "means": self.means,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.sums = state["sums"].clone()
        self.counts = state["counts"].clone()
        self.epochs = state["epochs"].clone()
        self.means = state["means"].clone()
