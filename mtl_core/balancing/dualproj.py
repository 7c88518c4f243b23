"""Projection of the mean gradient onto the cone that hurts no task."""

from collections.abc import Mapping

from torch import Tensor

from mtl_core.balancing.dual_cone import dual_cone_weights, require_regularisation
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.preference import Preference
from mtl_core.balancing.stages import Stages


class DualProj(GradientBalancer):
    r"""Projects the mean gradient onto the directions that hurt no task.

    Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, eq. 11,
    as taken up by Quinton and Rey (2024): the direction closest to :math:`\sum_t u_t g_t`,
    :math:`u_t = 1/T` by default, among those with :math:`\langle g_t, d \rangle \ge 0` for all t.
    No task gets worse to first order, but some gain exactly nothing; equal to the mean where the
    mean itself hurts no task.

    Degree one in the scale of the gradients, any scale. Decoders are not weighted. TorchJD
    regularises by :math:`10^{-4}` of the mean squared length; here each row by its own. Fragile:
    as `UPGrad`.

    Args:
        preference: share of a task in the mean by name, relative to the others; one where not
            named.
        regularisation: added to the cosine matrix's diagonal.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Lopez-Paz & Ranzato, NeurIPS 2017"

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
        """Weights of the projected mean."""
        shares = self.preference.of(step) / len(gramian)
        return dual_cone_weights(gramian, shares, regularisation=self.regularisation)
