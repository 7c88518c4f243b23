"""Weights from tangent kernels at the features."""

from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from mtl_core.balancing.border import Merged
from mtl_core.balancing.feature import FeatureBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.ntkmtl import ntk_weights
from mtl_core.balancing.ranks import sum_over_ranks, world_size
from mtl_core.balancing.rows import combine
from mtl_core.errors import ArgumentError, UnknownNameError

Scale = Literal["sum", "paper"]


def part_squares(samples: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Squared lengths of the gradient of every part of the batch, and the labels behind them.

    Sample i belongs to part i modulo `parts`. Samples without any gradient of a task count as
    unlabelled.

    Args:
        samples: (T, B, m) gradients of mean losses by sample.
        parts: n.

    Returns:
        (T, n) float64 squares of the part's share in the gradient, and (T, n) float64 counts of its
        labelled samples.
    """
    tasks, batch, _ = samples.shape
    squares = torch.zeros(tasks, parts, dtype=torch.float64)
    counts = torch.zeros(tasks, parts, dtype=torch.float64)
    by_sample = samples.double().square().sum(-1).cpu()
    where = torch.arange(batch) % parts
    squares.index_add_(1, where, by_sample)
    counts.index_add_(1, where, (by_sample > 0).double())
    return squares, counts


def largest_eigenvalues(squares: Tensor, counts: Tensor) -> Tensor:
    r"""Largest eigenvalue of every task's kernel of part gradients at the features.

    Gradients of different parts touch different features, so the n × n kernel is diagonal and its
    largest eigenvalue is the largest squared length of a part's mean-loss gradient. The gradient of
    a part's own mean loss is its share in the whole times :math:`N / N_j` labels.

    Args:
        squares: (T, n) see `part_squares`.
        counts: (T, n).

    Returns:
        (T,) zero for tasks without gradient.
    """
    share = counts / counts.sum(1, keepdim=True).clamp_min(1)
    return torch.where(counts > 0, squares / share.square().clamp_min(1e-300), 0.0).amax(1)


class NTKMTLSR(FeatureBalancer):
    r"""Gives the tangent kernels of all tasks at the features the same largest eigenvalue.

    Qin, Wang, Liao and Yan, "NTKMTL", NeurIPS 2025, section 4.3 (the shared-representation
    variant): the batch is taken in n parts, :math:`\lambda_t` is the largest eigenvalue of the n ×
    n products of the gradients of the parts' losses by the features, and the losses are weighted by
    :math:`w_t = \sqrt{\bar\lambda / \lambda_t}`. The features of different parts are different
    variables, so the products are diagonal and :math:`\lambda_t` is the square of the steepest
    part's gradient: an upper end of the task's gradients where `NTKMTL` takes the mean one. About
    the price of the plain sum of losses.

    Weights reach the decoders, since the authors weigh the losses; their code has weights larger by
    :math:`\sqrt T`, which ``scale: paper`` restores. Samples are dealt to parts in turn; two
    processes equal one where `parts` is a multiple of their number. Samples without any gradient
    of a task count as unlabelled. A task without gradient in the batch keeps weight one and is left
    out of the mean. Degree one in the scale of the gradients, any scale. Needs a border of
    tensors whose first axis is the batch (by BatchNorm in decoders samples mix, which is
    neglected).

    Args:
        parts: n; at most one a sample are taken.
        scale: ``sum`` gives tasks of equal kernels weight one, ``paper`` the authors' code's
            :math:`\sqrt T`.
        weight_decoders: multiply decoder gradients by the weights.
        seed: unused; every balancer has one.
    """

    source = "Qin et al., NeurIPS 2025"

    def __init__(
        self,
        *,
        parts: int = 4,
        scale: Scale = "sum",
        weight_decoders: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(weight_decoders=weight_decoders, seed=seed)
        if parts < 1:
            raise ArgumentError("parts", "be at least 1", parts)
        if scale not in get_args(Scale):
            raise UnknownNameError("scale", scale, get_args(Scale))
        self.parts = parts
        self.scale: Scale = scale

    def merge(self, rows: Tensor, losses: Tensor, step: Step) -> Merged:
        """Weighted sum of the tasks' gradients of the features."""
        ranks = world_size()
        mine = max(1, self.parts // ranks)
        found = torch.stack(part_squares(self.by_sample(rows, step.samples), mine))
        if ranks > 1:
            slots = torch.zeros(2, len(rows), mine, ranks, device=rows.device, dtype=torch.float64)
            slots[..., dist.get_rank()] = found.to(rows.device)
            found = sum_over_ranks(slots).flatten(2).cpu()
        largest = largest_eigenvalues(*found)
        alive = largest > 0
        weights = torch.ones(len(rows), dtype=torch.float64)
        if bool(alive.any()):
            weights[alive] = ntk_weights(largest[alive])
            if self.scale == "paper":
                weights[alive] *= float(alive.sum()) ** 0.5
        return Merged(combine(rows, weights), weights)
