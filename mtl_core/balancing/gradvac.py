"""Gradient vaccine: pairs are brought to the similarity they used to have."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.pcgrad import draw_orders
from mtl_core.balancing.solvers import to_numpy
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError

_CANCELLED = 1e-14  # squared length, of the row's own, below which a corrected row has no direction


def gradvac_weights(gramian: Tensor, orders: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    r"""Weights of GradVac, in Gramian form, and the cosines met on the way.

    Row i starts as :math:`\tilde g_i = g_i`; visiting j, a cosine :math:`\phi` of :math:`\tilde
    g_i` and :math:`g_j` below the target :math:`\hat\phi_{ij}` is raised to it by adding

    .. math:: \frac{\lVert \tilde g_i \rVert (\hat\phi \sqrt{1 - \phi^2} - \phi \sqrt{1 -
        \hat\phi^2})}{\lVert g_j \rVert \sqrt{1 - \hat\phi^2}} \, g_j

    (Wang et al., ICLR 2021, eq. 2).

    Args:
        gramian: (T, T) with a positive diagonal.
        orders: (T, T) int64, row i the order in which task i visits all tasks (itself is passed
            over).
        targets: (T, T) in [-1, 1); the diagonal is not looked at.

    Returns:
        (T,) column sums of the coefficients, and (T, T) the cosine of every pair when it was
        visited, before any correction; NaN on the diagonal and where a row had been cancelled.
    """
    inner = to_numpy(gramian)
    visits, wanted = orders.numpy(), to_numpy(targets)
    tasks = np.arange(len(inner))
    lengths = np.sqrt(inner.diagonal())
    # Everything in units of the rows' lengths, where the rule is the same.
    similar = inner / (lengths * lengths[:, None])
    coefficients = np.eye(len(inner))
    products = similar.copy()  # of the corrected rows with the rows
    squares = np.ones(len(inner))  # of the corrected rows
    turns = np.ascontiguousarray(visits.T)
    flat = turns + tasks * len(inner)
    goals = np.where(turns == tasks, -2.0, wanted.take(flat))  # below any cosine
    spare = np.maximum(1 - goals * goals, 1e-100)
    met = np.empty_like(inner)
    for k, (at, where) in enumerate(zip(turns, flat, strict=True)):
        # All tasks at once, each with the task whose turn it is.
        own = np.sqrt(squares)
        cosine = products.take(where) / own
        low = cosine < goals[k]
        if squares.min() <= _CANCELLED:
            seen = squares > _CANCELLED
            cosine[~seen], low = np.nan, low & seen
        met[k] = cosine
        if low.any():
            share = np.maximum(1 - cosine * cosine, 0.0) / spare[k]
            added = np.where(low, own * (goals[k] * np.sqrt(share) - cosine), 0.0)
            coefficients.ravel()[where] += added
            products += added[:, None] * similar.take(at, 0)
            squares = np.where(low, np.maximum(squares * share, 1e-30), squares)
    cosines = np.empty_like(inner)
    cosines.ravel()[flat] = np.clip(met, -1.0, 1.0)
    np.fill_diagonal(cosines, np.nan)
    weights = (lengths @ coefficients) / lengths
    return torch.from_numpy(weights).to(gramian.dtype), torch.from_numpy(cosines)


class GradVac(GradientBalancer):
    r"""Raises the cosine of two gradients to its running mean where it falls below, and adds up.

    Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively
    Multilingual Models", ICLR 2021, algorithm 1. See `gradvac_weights` for the correction. The
    target :math:`\hat\phi_{ij}`, at first zero, follows the cosines that were met:
    :math:`\hat\phi \leftarrow (1 - \beta) \hat\phi + \beta \phi`. It is a state by pair of entries,
    not symmetric, and by group with ``group: layer`` or ``matrix`` (the paper's best choice). The
    first update equals PCGrad's; targets above zero push tasks together that do not conflict.

    Fragile: targets close to one blow the correction up, so they are limited to :math:`1 - 10^{-6}`
    here. A row cancelled by an opposite one has no cosine any more: it stays, and its targets too.
    Like PCGrad, no guarantee against harm to single tasks.

    Degree one in the scale of the gradients, and the targets do not see it. The sum of rows where
    all agree. Decoders are not weighted, as published. LibMTL and TorchJD add absolute constants to
    products of gradients, which turns small gradients into a plain sum; otherwise the same.

    Args:
        beta: share of the new cosine in the target, in [0, 1]. Both libraries take 0.5; 0.01 is
            said to be the paper's (not verified).
        stages: options common to all methods of this family.
        seed: of the visiting order, which is drawn anew for every update.
    """

    source = "Wang et al., ICLR 2021"

    def __init__(self, *, beta: float = 0.5, stages: Stages | None = None, seed: int = 0) -> None:
        super().__init__(stages=stages, seed=seed)
        if not 0 <= beta <= 1:
            raise ArgumentError("beta", "lie in [0, 1]", beta)
        self.beta = beta
        self.targets = torch.zeros(0, 0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Targets of zero: the first update is PCGrad's."""
        self.targets = torch.zeros(entries, entries, dtype=torch.float64)

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights for one random visiting order per task; the targets of the pairs present move."""
        at = (step.present[:, None], step.present)
        former = self.targets[at]
        orders = draw_orders(len(gramian), step.generator)
        weights, cosines = gradvac_weights(gramian, orders, former)
        moved = ((1 - self.beta) * former + self.beta * cosines).clamp(max=1 - 1e-6)
        self.targets[at] = torch.where(cosines.isnan(), former, moved)
        return weights

    def method_state(self) -> dict[str, Any]:
        """The targets."""
        return {"targets": self.targets}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.targets = state["targets"].clone()
