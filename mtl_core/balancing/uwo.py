"""Weights inverse to the losses."""

from typing import Literal

from torch import Tensor

from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError


class UWO(LossBalancer):
    r"""Optimal uncertainty weights in closed form: :math:`w_t = 1 / \operatorname{sg}[\ell_t]`.

    Kirchdorfer et al., "Analytical Uncertainty-Based Loss Weighting in Multi-Task Learning", GCPR
    2024: what UW's learned variances converge to, without their inertia. As the loss is a constant
    in its own weight, the update is that of `SI`; ``scale: sum`` takes away its growth.

    Losses have to be positive. LibMTL and TorchJD do not have it.

    Args:
        scale: ``sum`` divides the weights by their mean, so that they sum to T; ``paper`` leaves
            them.
        floor: least loss in a denominator, positive.
        seed: unused; every balancer has one.
    """

    source = "Kirchdorfer et al., GCPR 2024"

    def __init__(
        self, *, scale: Literal["sum", "paper"] = "sum", floor: float = 1e-8, seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        check_choice("scale", scale, ("sum", "paper"))
        if not floor > 0:
            raise ArgumentError("floor", "be positive", floor)
        self.scale = scale
        self.floor = floor

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Inverse losses (T,)."""
        require_positive(losses, step, "weights inverse to the losses")
        weights = 1 / losses.clamp_min(self.floor)
        return weights / weights.mean() if self.scale == "sum" else weights
