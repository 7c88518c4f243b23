"""Gradient surgery by projection."""

import numpy as np
import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.solvers import to_numpy


def pcgrad_weights(gramian: Tensor, orders: Tensor) -> Tensor:
    r"""Weights of PCGrad, in Gramian form.

    Row i of the coefficient matrix :math:`C` starts as the unit vector; visiting j, a negative
    :math:`(C_i G)_j` is removed by :math:`C_{ij} \mathrel{-}= (C_i G)_j / G_{jj}`
    (Yu et al., NeurIPS 2020, algorithm 1, where the vectors are projected themselves).

    Args:
        gramian: (T, T) with a positive diagonal.
        orders: (T, T) int64, row i the order in which task i visits all tasks (itself is passed
            over).

    Returns:
        (T,) column sums of the coefficients, in the Gramian's type; their consensus gain is T.
    """
    inner = to_numpy(gramian)
    visits = orders.numpy()
    tasks = np.arange(len(inner))
    coefficients = np.eye(len(inner))
    products = inner.copy()  # of the projected rows with the rows
    for at in visits.T:  # all tasks at once, each with the task whose turn it is
        conflict = np.minimum(products[tasks, at], 0) * (at != tasks)
        shares = conflict / inner[at, at]
        coefficients[tasks, at] -= shares
        products -= shares[:, None] * inner[at]
    return torch.from_numpy(coefficients.sum(0)).to(gramian.dtype)


def draw_orders(tasks: int, generator: torch.Generator) -> Tensor:
    """An order of all tasks for each of them, (T, T) int64."""
    return torch.rand(tasks, tasks, generator=generator, dtype=torch.float64).argsort(1)


class PCGrad(GradientBalancer):
    """Projects each task's gradient off the ones it conflicts with, in random order, and adds up.

    Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020. Equals the plain sum where
    no pair conflicts. No task gets worse to first order for two tasks; for more, that is not
    guaranteed. Decoders are not weighted, as published. Degree one in the scale of the gradients,
    any scale.

    Args:
        stages: options common to all methods of this family.
        seed: of the visiting order, which is drawn anew for every update.
    """

    source = "Yu et al., NeurIPS 2020"

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights for one random visiting order per task."""
        return pcgrad_weights(gramian, draw_orders(len(gramian), step.generator))
