"""Linear scalarisation along a preference, with a reward for keeping to it."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.draws import check_concentration, dirichlet
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.preference import Preference
from mtl_core.errors import ArgumentError


def cosmos_weights(losses: Tensor, preference: Tensor, penalty: float) -> Tensor:
    r"""Derivatives (T,) of :math:`r^\top \ell - \lambda \cos(r, \ell)`; of the first term at zero.

    Example:
        >>> import torch
        >>> cosmos_weights(torch.ones(2), torch.tensor([0.5, 0.5]), 8.0)
        tensor([0.5000, 0.5000])
    """
    length = losses.norm()
    if not length > 0:
        return preference
    unit, aim = losses / length, preference / preference.norm()
    slope: Tensor = (aim - (aim @ unit) * unit) / length
    return preference - penalty * slope


class COSMOS(LossBalancer):
    r"""Minimises :math:`r^\top \ell - \lambda \cos(r, \ell)` for a preference r.

    Ruchte and Grabocka, "Scalable Pareto Front Approximation for Deep Multi-Objective Learning",
    ICDM 2021. The cosine pulls the vector of losses to the ray of r. The weight of a task
    whose loss is small for its preference can be negative: that task is made worse.

    With `concentration` the preference is drawn anew for every update. The published method also
    feeds it to the network, to learn a whole front in one model; networks here take no such input,
    so a drawn preference only spreads one model over the front's losses. Agrees with TorchJD's
    COSMOS under ``scale: paper``; LibMTL does not have it.

    Args:
        preference: positive relative r by name, normalised to the simplex over the tasks present;
            one where not named.
        concentration: of the symmetric Dirichlet distribution to draw r from (1 is uniform); None
            keeps `preference`.
        penalty: :math:`\lambda`, not negative; the paper has 0.01 to 8, in units of the losses.
        scale: ``sum`` multiplies by T, so that the step agrees with the plain sum of the losses
            where losses and preferences are equal; ``paper`` does not.
        seed: of the draws.
    """

    source = "Ruchte & Grabocka, ICDM 2021"

    def __init__(
        self,
        *,
        preference: Mapping[str, float] | None = None,
        concentration: float | None = None,
        penalty: float = 1.0,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        check_choice("scale", scale, ("sum", "paper"))
        check_concentration(concentration, preference)
        if not 0 <= penalty < float("inf"):
            raise ArgumentError("penalty", "be finite and not negative", penalty)
        self.preference = Preference(preference)
        self.concentration = concentration
        self.penalty_factor = penalty
        self.scale = scale

    def reset(self, entries: int) -> None:
        """Check names against those of the run."""
        self.preference.check(self.entries)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Derivatives (T,) of the scalarisation."""
        size = len(losses)
        if self.concentration is None:
            preference = self.preference.of(step) / size
        else:
            preference = dirichlet(step, len(self.entries), self.concentration)
        weights = cosmos_weights(losses, preference, self.penalty_factor)
        return weights * size if self.scale == "sum" else weights
