"""Penalty-based boundary intersection."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from mtl_core.balancing.by_name import ByName, check_choice
from mtl_core.balancing.draws import check_concentration, dirichlet
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.preference import Preference
from mtl_core.errors import ArgumentError


def pbi_weights(losses: Tensor, preference: Tensor, ideal: Tensor, theta: float) -> Tensor:
    r"""Derivatives (T,) of :math:`d_1 + \theta d_2`.

    Along the unit vector u of the preference :math:`d_1 = (\ell - z^*)^\top u`, off it
    :math:`d_2 = \lVert (\ell - z^*) - d_1 u \rVert`, whose derivative on the ray itself is taken as
    zero.

    Example:
        >>> import torch
        >>> pbi_weights(torch.tensor([4.0, 0.0]), torch.tensor([1.0, 0.0]), torch.zeros(2), 5.0)
        tensor([1., 0.])
    """
    unit: Tensor = preference / preference.norm()
    shifted = losses - ideal
    across = shifted - (shifted @ unit) * unit
    off = across.norm()
    if not off > 1e-12 * shifted.norm():
        return unit
    pull: Tensor = across * (theta / off)
    return unit + pull


class PBI(LossBalancer):
    r"""Minimises :math:`d_1 + \theta d_2`: the way along a preference, and the distance from it.

    Zhang and Li, "MOEA/D", IEEE Transactions on Evolutionary Computation 2007. The
    second term moves at full strength however close the ray is, so the weights jump where the
    losses cross it, and with the usual :math:`\theta = 5` tasks whose loss is small for their
    preference get negative weights: they are made worse until all losses lie on the ray.

    With `concentration` the preference is drawn anew for every update; see `COSMOS`. Agrees with
    TorchJD's PBI under ``scale: paper`` off the ray; LibMTL does not have it.

    Args:
        preference: positive relative direction by name; one where not named.
        concentration: of the symmetric Dirichlet distribution to draw it from (1 is uniform); None
            keeps `preference`.
        theta: not negative.
        ideal: :math:`z^*` by name, zero where not named; below the losses.
        scale: ``sum`` multiplies the weights by T over those on the ray (:math:`\sum_t u_t`), so
            that the step agrees with the plain sum where losses and preferences are equal;
            ``paper`` does not.
        seed: of the draws.
    """

    source = "Zhang & Li, TEVC 2007"

    def __init__(
        self,
        *,
        preference: Mapping[str, float] | None = None,
        concentration: float | None = None,
        theta: float = 5.0,
        ideal: Mapping[str, float] | None = None,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        check_choice("scale", scale, ("sum", "paper"))
        check_concentration(concentration, preference)
        if not 0 <= theta < float("inf"):
            raise ArgumentError("theta", "be finite and not negative", theta)
        self.preference = Preference(preference)
        self.concentration = concentration
        self.theta = theta
        self.ideal = ByName("ideal", ideal, 0.0)
        self.scale = scale

    def reset(self, entries: int) -> None:
        """Check names against those of the run."""
        self.preference.check(self.entries)
        self.ideal.check(self.entries)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Derivatives (T,) of the scalarisation."""
        if self.concentration is None:
            preference = self.preference.of(step)
        else:
            preference = dirichlet(step, len(self.entries), self.concentration)
        weights = pbi_weights(losses, preference, self.ideal.tensor(step), self.theta)
        if self.scale == "sum":
            weights = weights * (len(losses) * preference.norm() / preference.sum())
        return weights
