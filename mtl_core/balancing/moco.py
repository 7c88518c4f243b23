"""Multi-objective descent on corrected gradients."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.row_state import RowState, load_into, state_of
from mtl_core.balancing.rows import combine, gramian
from mtl_core.balancing.rowwise import Update
from mtl_core.balancing.simplex import project_to_simplex, restricted
from mtl_core.errors import ArgumentError, UnknownNameError

Scale = Literal["sum", "paper"]


class MoCo(JacobianBalancer):
    r"""Multiple-gradient descent without its bias from mini-batches: gradients are tracked.

    Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent
    Approach", ICLR 2023, algorithm 1: :math:`y_t \leftarrow y_t - \beta_k (y_t - g_t)` and one
    projected step :math:`\lambda \leftarrow \Pi_\Delta(\lambda - \gamma_k (Y Y^\top + \rho I)
    \lambda)`; the update is :math:`Y^\top \lambda`, with :math:`\beta_k = \beta / k^\sigma`,
    :math:`\gamma_k = \gamma / k^{\sigma_\lambda}`. :math:`y` starts at zero, so the first steps are
    short; :math:`k` counts a task's own updates for :math:`\beta_k`, all updates for
    :math:`\gamma_k`.

    No simple degree: the step on :math:`\lambda` grows with the square of the gradients' scale,
    as published, so `gamma` has to fit it. Tasks absent from a batch keep their state, and their
    weight. Decoders keep their own gradients. LibMTL replaces :math:`g_t` by :math:`g_t \ell_t /
    \|g_t\|` and the projection by a softmax; TorchJD has no such method. State: one gradient a
    task.

    Args:
        beta: rate of the tracking, in (0, 1].
        gamma: rate of the weights, not negative.
        sigma: :math:`\sigma`, not negative.
        sigma_lambda: :math:`\sigma_\lambda`, not negative.
        rho: regularisation of the weights, not negative.
        scale: ``sum`` multiplies by the number of tasks, so that the update agrees with the plain
            sum of the losses where all tasks agree; ``paper`` leaves it.
        seed: unused; every balancer has one.
    """

    source = "Fernando et al., ICLR 2023"

    def __init__(
        self,
        *,
        beta: float = 0.5,
        gamma: float = 0.1,
        sigma: float = 0.5,
        sigma_lambda: float = 0.5,
        rho: float = 0.0,
        scale: Scale = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if not 0 < beta <= 1:
            raise ArgumentError("beta", "lie in (0, 1]", beta)
        rates = {"gamma": gamma, "sigma": sigma, "sigma_lambda": sigma_lambda, "rho": rho}
        for name, value in rates.items():
            if not value >= 0:
                raise ArgumentError(name, "not be negative", value)
        if scale not in get_args(Scale):
            raise UnknownNameError("scale", scale, get_args(Scale))
        self.beta = beta
        self.gamma = gamma
        self.sigma = sigma
        self.sigma_lambda = sigma_lambda
        self.rho = rho
        self.scale: Scale = scale
        self.reset(0)

    def reset(self, entries: int) -> None:
        """Equal weights; gradients tracked from zero."""
        self._tracked = RowState(entries)
        self._count = torch.zeros(entries, dtype=torch.float64)
        self._lambda = torch.full((entries,), 1 / max(entries, 1), dtype=torch.float64)
        self._latest = torch.zeros(0, dtype=torch.float64)

    def aggregate(self, jacobian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Combination of the tracked gradients; all state advances."""
        at = step.present
        self._count[at] += 1
        rates = (self.beta / self._count[at] ** self.sigma).to(jacobian)
        tracked = self._tracked.read(jacobian, at)
        tracked.lerp_(jacobian, rates[:, None])
        self._tracked.write(tracked, at)
        weights, mass = restricted(self._lambda, at)
        pull = gramian(tracked) @ weights + self.rho * weights
        rate = self.gamma / (step.index + 1) ** self.sigma_lambda
        weights = project_to_simplex(weights - rate * pull)
        self._lambda[at] = weights * mass
        self._latest = weights * (len(weights) if self.scale == "sum" else 1)
        return combine(tracked, self._latest)

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """The direction, with the weights for the log."""
        return super().update(rows, losses, step)._replace(weights=self._latest)

    def method_state(self) -> dict[str, Any]:
        """Tracked gradients, counts and weights."""
        return {
            "tracked": state_of([self._tracked]),
            "count": self._count,
            "lambda": self._lambda,
        }

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        load_into([self._tracked], state["tracked"])
        self._count = state["count"].clone()
        self._lambda = state["lambda"].clone()
