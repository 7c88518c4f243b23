"""Alpha-fair gains."""

import math

import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.newton import power_equilibrium
from mtl_core.balancing.solvers import is_stationary, to_numpy
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError


class FairGrad(GradientBalancer):
    r"""Spreads the gains over the tasks by alpha-fairness.

    Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024, eq. 6 and 7: the
    greatest sum of :math:`(g_t \cdot d)^{1-\alpha} / (1-\alpha)` in a ball is in the direction
    :math:`J^\top w` with

    .. math:: (Gw)_t = w_t^{-1/\alpha}, \qquad w > 0 .

    :math:`\alpha = 1` is Nash-MTL without its clip, :math:`\alpha \to 0` goes to equal weights,
    :math:`\alpha \to \infty` to the greatest least gain. No task gets worse to first order. Only
    for :math:`\alpha = 1` the direction does not depend on the scale of losses.

    Degree :math:`(1 - \alpha) / (1 + \alpha)` in the scale of the gradients, -1/3 by default: the
    update *grows* as gradients shrink, and is longer or shorter than the sum's by any factor (see
    the logged norm). ``Stages(norm="sum")`` gives it the length of the sum. ``scale`` has no
    effect.

    Near a Pareto stationary point weights grow; 1e-8 of the diagonal is added to the Gramian, which
    keeps them finite. The report says ``stationary`` where the update is below 1e-3 of what its
    parts measure. LibMTL and TorchJD start a least-squares solver at :math:`1 / T` whatever the
    scale, which fails from gradients of length 1e-3 on. Decoders are not weighted, as in the
    authors' code; LibMTL weighs them.

    Args:
        alpha: fairness, positive. 2 in all of the authors' launch scripts, 1 in their class and in
            LibMTL.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Ban and Ji, ICML 2024"

    def __init__(self, *, alpha: float = 2.0, stages: Stages | None = None, seed: int = 0) -> None:
        super().__init__(stages=stages, seed=seed)
        if not (alpha > 0 and math.isfinite(alpha)):
            raise ArgumentError("alpha", "be positive and finite", alpha)
        self.alpha = alpha

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """The weights whose inverse power the gains are."""
        inner = to_numpy(gramian)
        weights, _ = power_equilibrium(inner, exponent=1 / self.alpha)
        self.report["stationary"] = float(is_stationary(inner, weights, tolerance=1e-6))
        return torch.from_numpy(weights)

    def gain(self, tasks: int) -> None:
        """It depends on the length of the rows."""
