"""Conflict-free direction of equal cosines."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.preference import Preference
from mtl_core.balancing.spectrum import kept_spectrum
from mtl_core.balancing.stages import Stages

_STATIONARY = 1e-12


def config_weights(gramian: Tensor, cosines: Tensor) -> Tensor:
    r"""Weights of ConFIG.

    With unit rows :math:`U` and their products :math:`C` the direction is :math:`U^+ p = U^\top a`,
    :math:`a = C^+ p`, of length :math:`\sum_t \langle g_t, \hat u \rangle` (Liu et al. 2024, eq. 2
    and 3), so that no pseudo-inverse of the Jacobian's size is needed.

    Args:
        gramian: (T, T) float64, of a positive diagonal.
        cosines: :math:`p`, (T,) positive: what the cosines with all tasks are proportional to.

    Returns:
        (T,) weights, zero where no direction has such cosines (opposite rows); their consensus
        gain is T.
    """
    lengths = gramian.diagonal().sqrt()
    products = gramian / torch.outer(lengths, lengths)
    values, vectors = kept_spectrum(products)
    parts = vectors.t() @ cosines
    if float(parts.square().sum()) <= _STATIONARY * float(cosines.square().sum()):
        return torch.zeros_like(lengths)
    a = vectors @ (parts / values)
    square = (parts.square() / values).sum()
    return a / lengths * (lengths @ (products @ a)) / square


class ConFIG(GradientBalancer):
    r"""The direction with equal cosines to all tasks, as long as the tasks' projections on it.

    Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural
    Networks", 2024, eq. 2 and 3: :math:`\hat u` is the normalised :math:`U^+ \mathbf 1` of the
    unit gradients, the update :math:`(\sum_t \langle g_t, \hat u \rangle)\, \hat u`. For
    independent rows no task gets worse to first order. Its direction does not depend on the
    scale of any loss.

    Fragile where rows become dependent: the direction is then the least-squares one, whose cosines
    need not be equal; the update vanishes as rows approach opposition, where no direction serves
    all, and is zero there. Degree one in the scale of the gradients. Decoders are not weighted.
    Agrees with TorchJD; LibMTL has no such method. The variant with momentum that visits one
    task a step (M-ConFIG) is not offered.

    Args:
        preference: what the cosine with a task is to be proportional to, by name; one where not
            named.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Liu, Chu & Thuerey, ICLR 2025"

    def __init__(
        self,
        *,
        preference: Mapping[str, float] | None = None,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(stages=Stages() if stages is None else stages, seed=seed)
        self.preference = Preference(preference)

    def reset(self, entries: int) -> None:
        """Check that the preferences name entries of this run."""
        self.preference.check(self.entries)

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights of the conflict-free direction."""
        return config_weights(gramian, self.preference.of(step))
