"""Two halves of a batch, and losses at moved weights: what bi-level methods look at."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_core.balancing.losses import TaskLosses
from mtl_core.balancing.ranks import share_labels, sum_over_ranks, world_size
from mtl_core.balancing.rows import kept_graphs
from mtl_core.errors import BalancerError, NonFiniteLossError

LEAST_SAMPLES = 4
"""Smaller batches are not split: BatchNorm needs two samples in either half."""


class Half(NamedTuple):
    """Losses of one half of the batch.

    Args:
        losses: local scalars with graph.
        means: loss by entry over all ranks, in the order of the run's entries.
        shares: factor of every local loss.
    """

    losses: dict[str, Tensor]
    means: dict[str, float]
    shares: dict[str, float]


class LookAhead:
    """One batch in two halves, samples dealt in turn, evaluated wherever the weights are.

    Gradients are of all trainable parameters, unscaled, and mean over ranks.

    Args:
        step: the batch.
        parameters: n numbers in all.
        entries: of the run.
        scale: loss scale, under which gradients are taken.
        name: of the method, for errors.
    """

    def __init__(
        self,
        step: TaskLosses,
        parameters: Sequence[nn.Parameter],
        entries: Sequence[str],
        *,
        scale: float,
        name: str,
    ) -> None:
        if step.recompute is None:
            raise BalancerError(f"{name} needs a module that can evaluate a batch again.")
        self.recompute = step.recompute
        self.parameters = list(parameters)
        self.entries = tuple(entries)
        self.scale = scale
        self.name = name
        self.device = self.parameters[0].device

    def evaluate(self, half: int) -> Half:
        """Losses of half 0 or 1 at the weights as they are. Every rank has to call it.

        Raises:
            BalancerError: a loss is not finite there.
        """
        try:
            part = self.recompute(part=slice(half, None, 2))
        except NonFiniteLossError as error:
            raise BalancerError(
                f"{self.name} found losses that are not finite in half of a batch or at the moved "
                f"weights; a smaller inner_lr moves them less. {error}"
            ) from error
        means, shares = share_labels(part, self.entries, self.device)
        return Half(part.losses, means, shares)

    def rows(self, half: Half) -> Tensor:
        """Gradients (P, n) float32 of the entries of ``half.means``, in their order."""
        found = torch.zeros(len(half.means), self._size(), device=self.device)
        last = next(reversed(half.losses), "")
        with kept_graphs():
            for i, entry in enumerate(half.means):
                if entry in half.losses:
                    self._put(found[i], half, {entry: 1.0}, keep=entry != last)
        return self._mean(found)

    def gradient(self, half: Half, weights: dict[str, float]) -> Tensor:
        """Gradient (n,) float32 of the weighted sum of the losses; uses up their graph."""
        found = torch.zeros(self._size(), device=self.device)
        known = {e: w for e, w in weights.items() if e in half.losses}
        if known:
            self._put(found, half, known, keep=False)
        return self._mean(found)

    @torch.no_grad()
    def move(self, direction: Tensor, factor: float) -> None:
        """Add `factor` times a direction (n,) to the weights; call it inside of `MovedWeights`."""
        steps = direction.split([p.numel() for p in self.parameters])
        for parameter, step in zip(self.parameters, steps, strict=True):
            parameter.add_(step.view(parameter.shape), alpha=factor)
        torch.clear_autocast_cache()

    def _size(self) -> int:
        return sum(p.numel() for p in self.parameters)

    def _put(self, place: Tensor, half: Half, weights: dict[str, float], *, keep: bool) -> None:
        losses = [half.losses[e] for e in weights]
        outgoing = [
            loss.new_tensor(weights[e] * half.shares[e] * self.scale)
            for e, loss in zip(weights, losses, strict=True)
        ]
        found = torch.autograd.grad(
            losses, self.parameters, outgoing, retain_graph=keep, allow_unused=True
        )
        views = place.split([p.numel() for p in self.parameters])
        for view, gradient in zip(views, found, strict=True):
            if gradient is not None:
                view.copy_(gradient.flatten())
        if self.scale != 1.0:
            place.div_(self.scale)

    def _mean(self, found: Tensor) -> Tensor:
        return sum_over_ranks(found).div_(world_size()) if world_size() > 1 else found


def enough_samples(step: TaskLosses, device: torch.device) -> bool:
    """Whether the batch can be split on every rank; all of them have to ask."""
    short = torch.tensor(float(step.size < LEAST_SAMPLES), device=device)
    return float(sum_over_ranks(short)) == 0
