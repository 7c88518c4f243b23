"""Random weights."""

from typing import Literal

import torch
from torch import Tensor

from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.draws import dirichlet
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step


class RLW(LossBalancer):
    r"""Random loss weights, drawn anew for every update.

    Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
    Learning", TMLR 2022, algorithm 2: :math:`w = \operatorname{softmax}(\epsilon)` with normal
    :math:`\epsilon`, or weights from the uniform distribution on the simplex. The expected update
    is that of equal weights. All processes and all micro-batches of a window draw the same.

    Agrees in law with LibMTL's RLW and TorchJD's Random, which leave the weights at a sum of one:
    a T-th of the learning rate of the sum.

    Args:
        distribution: ``normal`` (softmax of normal numbers) or ``dirichlet`` (uniform).
        scale: ``sum`` multiplies by T; ``paper`` leaves weights that sum to one.
        seed: of the draws.
    """

    source = "Lin et al., TMLR 2022"

    def __init__(
        self,
        *,
        distribution: Literal["normal", "dirichlet"] = "normal",
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        check_choice("distribution", distribution, ("normal", "dirichlet"))
        check_choice("scale", scale, ("sum", "paper"))
        self.distribution = distribution
        self.scale = scale

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Random weights (T,), a function of seed and update."""
        if self.distribution == "dirichlet":
            weights = dirichlet(step, len(self.entries), 1.0)
        else:
            drawn = torch.randn(len(self.entries), dtype=torch.float64, generator=step.generator)
            weights = torch.softmax(drawn[step.present], 0)
        return weights * len(losses) if self.scale == "sum" else weights
