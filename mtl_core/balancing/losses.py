"""What a training step hands to a balancer, and what a balancer tells its method."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mtl_core.nn.features import Features
from mtl_core.types import TaskName


class Recompute(Protocol):
    """Evaluates the losses of the same batch once more, at the parameters as they now are.

    The random numbers (dropout, stochastic depth) are those of the first pass if the balancer set
    ``wants_replay``, and buffers (BatchNorm statistics) end as they were.
    """

    def __call__(
        self, *, tasks: Sequence[TaskName] | None = None, part: slice | None = None
    ) -> "TaskLosses":
        """Evaluate again.

        Args:
            tasks: whose decoders run; None for all.
            part: of the batch's samples; None for all.
        """


@dataclass(frozen=True)
class TaskLosses:
    """The separate scalar losses of one forward pass.

    They are never differentiated through `vector`: indexing a stacked tensor would walk every
    decoder for every task. The vector only exists so that the factor which Lightning multiplies on
    (accumulation, loss scale) can be read off the graph.

    Args:
        losses: scalar loss by entry, in the module's order; entries without labels are absent. An
            entry is a task, or ``task/group`` for tasks with groups.
        owner: task of every entry.
        values: the same losses on the host.
        counts: labelled elements behind every loss, on the host.
        vector: (T,) the stacked losses, whose sum (plus `aux`) was returned to the trainer.
        aux: scalar outside of balancing (router load and the like), or None.
        idle: zero with a graph to the predictions of absent tasks, so that DistributedDataParallel
            sees every parameter; None on one process.
        features: the encoder's output, or None for a network without a border.
        cut: each task's copies of it, with gradients wanted; empty unless asked for.
        recompute: for methods that look at moved weights or at parts of the batch.
        size: samples in the batch; 0 where unknown.
    """

    losses: dict[str, Tensor]
    owner: dict[str, TaskName]
    values: dict[str, float]
    counts: dict[str, float]
    vector: Tensor
    aux: Tensor | None = None
    idle: Tensor | None = None
    features: Features | None = None
    cut: dict[TaskName, Features] = field(default_factory=dict)
    recompute: Recompute | None = None
    size: int = 0

    @property
    def total(self) -> Tensor:
        """Plain sum of everything: what a trainer that knows nothing of balancing minimises."""
        parts = [part for part in (self.aux, self.idle) if part is not None]
        total = self.vector.sum()
        for part in parts:
            total = total + part
        return total

    def factors(self, scaled: Tensor) -> tuple[Tensor, Tensor | None]:
        """Derivative of `scaled` (a multiple of `total`) by each loss (T,) and by `aux`."""
        wanted = [self.vector] if self.aux is None else [self.vector, self.aux]
        grads = torch.autograd.grad(scaled, wanted, retain_graph=True)
        return grads[0], grads[1] if len(grads) > 1 else None


@dataclass(frozen=True)
class Step:
    """What a method may know about the update it is asked for.

    Args:
        entries: names of the entries present, T of them; all tensors are in this order.
        present: (T,) int64 positions of these entries among all entries of the run, for state by
            entry.
        index: number of updates before this one.
        epoch: current epoch.
        generator: CPU generator, equal on all ranks and seeded anew for every update.
        samples: samples of this rank's micro-batch, where the method acts on one; else 0.
    """

    entries: tuple[str, ...]
    present: Tensor
    index: int
    epoch: int
    generator: torch.Generator
    samples: int = 0
