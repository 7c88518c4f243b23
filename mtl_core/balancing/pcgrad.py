"""Gradient surgery by projection."""

import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step


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
    size = gramian.shape[0]
    coefficients = torch.eye(size, dtype=gramian.dtype)
    for i in range(size):
        for j in orders[i].tolist():
            inner = coefficients[i] @ gramian[:, j]
            if j != i and inner < 0:
                coefficients[i, j] -= inner / gramian[j, j]
    return coefficients.sum(0)


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
        size = gramian.shape[0]
        orders = torch.stack([torch.randperm(size, generator=step.generator) for _ in range(size)])
        return pcgrad_weights(gramian, orders)
