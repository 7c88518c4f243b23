"""Geometric mean of the losses."""

from typing import Literal

from torch import Tensor

from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.stages import require_positive


def gls_weights(losses: Tensor) -> Tensor:
    r"""Derivatives (T,) of the geometric mean: :math:`\mathrm{GLS} / (T \ell_t)`, summed in logs.

    Example:
        >>> import torch
        >>> gls_weights(torch.tensor([1.0, 4.0])).tolist()
        [1.0, 0.25]
    """
    logs = losses.log()
    return (logs.mean() - logs).exp() / len(losses)


class GLS(LossBalancer):
    r"""Geometric loss strategy: minimises :math:`\exp(\tfrac1T \sum_t \log \ell_t)`.

    Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy
    for Multi-Task Learning", CVPR Workshops 2019. The direction does not depend on factors of the
    losses, and the step does not grow as losses fall (degree zero), unlike that of `SI`.

    Losses have to be positive. LibMTL takes the root of the product, which underflows for many
    small losses, and reports equal weights; here everything is summed in logarithms. Agrees with
    TorchJD's GeometricMean under ``scale: paper``.

    Args:
        scale: ``sum`` multiplies by T, so that the step agrees with the plain sum of the losses
            where they are equal; ``paper`` leaves the geometric mean.
        seed: unused; every balancer has one.
    """

    source = "Chennupati et al., CVPRW 2019"

    def __init__(self, *, scale: Literal["sum", "paper"] = "sum", seed: int = 0) -> None:
        super().__init__(seed=seed)
        check_choice("scale", scale, ("sum", "paper"))
        self.scale = scale

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Derivatives (T,) of the geometric mean."""
        require_positive(losses, step, "geometric means")
        return gls_weights(losses) * (len(losses) if self.scale == "sum" else 1)
