"""Projection of every gradient onto the cone that hurts no task."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mtl_core.balancing.dual_cone import dual_cone_weights, require_regularisation
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.preference import Preference
from mtl_core.balancing.stages import Stages


def upgrad_weights(gramian: Tensor, preference: Tensor, *, regularisation: float = 0.0) -> Tensor:
    """Sum of the projections' weights, one of every row times its preference.

    Args:
        gramian: (T, T) float64, of a positive diagonal.
        preference: (T,) positive.
        regularisation: see `dual_cone_weights`.

    Returns:
        (T,) weights; their consensus gain is the sum of the preference.
    """
    starts = torch.diag(preference)
    return dual_cone_weights(gramian, starts, regularisation=regularisation).sum(0)


class UPGrad(GradientBalancer):
    r"""Projects each task's gradient onto the directions that hurt no task, and averages.

    Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, section 3: with
    :math:`\pi` the projection onto :math:`\{x: J x \ge 0\}` the update is
    :math:`\sum_t u_t \pi(g_t)`, :math:`u_t = 1/T` by default. No task ever gets worse to first
    order, every task's gradient has its say in proportion to its length, and the update is zero at
    Pareto-stationary points only. For two tasks it is half of PCGrad.

    Degree one in the scale of the gradients, any scale. Decoders are not weighted. TorchJD adds
    :math:`10^{-4}` of the mean squared length to every diagonal entry and turns into the plain mean
    for gradients shorter than about :math:`10^{-2}`; here the addition is relative to each row,
    and there is no threshold. Fragile: weights grow to about ``regularisation ** -0.5`` where rows
    become dependent, the update stays bounded by the rows.

    Args:
        preference: share of a task in the sum by name, relative to the others; one where not
            named.
        regularisation: added to the cosine matrix's diagonal.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.

    Example:
        >>> import torch
        >>> from mtl_core.balancing import UPGrad
        >>> UPGrad().direction(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.5848, 3.8012, 3.8012])
    """

    source = "Quinton & Rey, 2024"

    def __init__(
        self,
        *,
        preference: Mapping[str, float] | None = None,
        regularisation: float = 1e-8,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(stages=Stages() if stages is None else stages, seed=seed)
        require_regularisation(regularisation)
        self.preference = Preference(preference)
        self.regularisation = regularisation

    def reset(self, entries: int) -> None:
        """Check that the preferences name entries of this run."""
        self.preference.check(self.entries)

    def gain(self, tasks: int) -> float:
        """One: a mean."""
        return 1.0

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights of the mean projection."""
        shares = self.preference.of(step) / len(gramian)
        return upgrad_weights(gramian, shares, regularisation=self.regularisation)
