"""Softmax of inverse losses."""

from typing import Literal

import torch
from torch import Tensor

from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError


class UWSO(LossBalancer):
    r"""Soft optimal uncertainty weights: :math:`w = \operatorname{softmax}(\tau^{-1} / \ell)`.

    Kirchdorfer et al., "Analytical Uncertainty-Based Loss Weighting in Multi-Task Learning", GCPR
    2024. The losses are constants in the weights. The paper searches the temperature over a grid of
    five to seven points per data set: it competes with the inverse losses, so it has the unit of an
    inverse loss, and where it is small the task of the smallest loss takes all weight. For large
    temperatures the weights are equal.

    Losses have to be positive. LibMTL and TorchJD do not have it.

    Args:
        tau: temperature, positive. The default is ours, on the side of equal weights.
        scale: ``sum`` multiplies the weights by T, so that the step agrees with the plain sum of
            the losses where weights are equal; ``paper`` leaves them on the simplex.
        floor: least loss in a denominator, positive.
        seed: unused; every balancer has one.
    """

    source = "Kirchdorfer et al., GCPR 2024"

    def __init__(
        self,
        *,
        tau: float = 10.0,
        scale: Literal["sum", "paper"] = "sum",
        floor: float = 1e-8,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        check_choice("scale", scale, ("sum", "paper"))
        for argument, value in {"tau": tau, "floor": floor}.items():
            if not value > 0:
                raise ArgumentError(argument, "be positive", value)
        self.tau = tau
        self.scale = scale
        self.floor = floor

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Softmax (T,) of inverse losses."""
        require_positive(losses, step, "weights inverse to the losses")
        weights = torch.softmax(1 / (losses.clamp_min(self.floor) * self.tau), 0)
        return weights * len(losses) if self.scale == "sum" else weights
