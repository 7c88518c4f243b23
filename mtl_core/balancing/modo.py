"""Multi-objective gradient with double sampling."""

from typing import Any, Literal

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.parts import PartsBalancer
from mtl_core.balancing.simplex import project_to_simplex, restricted
from mtl_core.errors import ArgumentError


class MoDo(PartsBalancer):
    r"""Weights that follow the gradient of the min-norm problem, estimated without bias.

    Chen et al., "Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization and
    Conflict-Avoidance", JMLR 2024 (eq. 2.9):

    .. math:: \lambda \leftarrow \Pi_\Delta (\lambda - \gamma (J_1 J_2^\top \lambda + \rho
        \lambda)), \qquad d = J^\top \lambda,

    with :math:`J_1, J_2` on independent batches, here parts of one (see `PartsBalancer`). J is the
    mean of both (the paper) or a third one (LibMTL, the authors' ``three_grads``).

    One step of :math:`\lambda` per update, in units of squared gradients: what :math:`\gamma` does
    depends on the scale of the losses. Weights of absent tasks wait; the others share what they
    weigh together. Agrees with TorchJD's MoDoWeighting under ``scale: paper``.

    Args:
        gamma: learning rate of the weights, positive: 0.1 in TorchJD, 1e-3 in LibMTL.
        rho: of the squared length of the weights, not negative.
        parts: 2 or 3.
        scale: ``sum`` multiplies the weights by T, so that the step agrees with the plain sum of
            the losses where all rows agree; ``paper`` leaves them on the simplex.
        seed: unused; every balancer has one.
    """

    source = "Chen et al., JMLR 2024"

    def __init__(
        self,
        *,
        gamma: float = 0.1,
        rho: float = 0.1,
        parts: int = 2,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(parts=parts, scale=scale, seed=seed)
        if not gamma > 0:
            raise ArgumentError("gamma", "be positive", gamma)
        if not rho >= 0:
            raise ArgumentError("rho", "not be negative", rho)
        self.gamma = gamma
        self.rho = rho
        self._lambda = torch.zeros(0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Equal weights."""
        self._lambda = torch.full((entries,), 1 / max(entries, 1), dtype=torch.float64)

    def weigh(self, cross: Tensor, losses: Tensor, step: Step) -> Tensor:
        """One step of the weights (T,)."""
        weights, mass = restricted(self._lambda, step.present)
        pull = cross @ weights + self.rho * weights
        weights = project_to_simplex(weights - self.gamma * pull)
        self._lambda[step.present] = weights * mass
        return weights

    def method_state(self) -> dict[str, Any]:
        """The weights."""
        return {"lambda": self._lambda}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._lambda = state["lambda"].clone()
