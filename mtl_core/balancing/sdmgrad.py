"""Stochastic direction-oriented multi-objective gradient descent."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.parts import PartsBalancer
from mtl_core.balancing.preference import Preference
from mtl_core.balancing.simplex import project_to_simplex, restricted
from mtl_core.errors import ArgumentError


def sdmgrad_descent(
    cross: Tensor,
    start: Tensor,
    target: Tensor,
    *,
    lr: float,
    momentum: float,
    iterations: int,
) -> Tensor:
    r"""Projected descent on :math:`\tfrac12 \lVert J^\top (w + r) \rVert^2` over the simplex.

    Args:
        cross: :math:`J_1 J_2^\top`, (T, T) float64; it is divided by the squared mean of the roots
            of its diagonal's positive part (section 6.1 of the paper).
        start: (T,) on the simplex.
        target: r, (T,).
        lr: learning rate.
        momentum: in [0, 1).
        iterations: how many.

    Returns:
        (T,) on the simplex, invariant to the scale of `cross`; `start` where no diagonal entry is
        positive.
    """
    size = cross.diagonal().clamp_min(0).sqrt().mean()
    if not float(size) > 0:
        return start
    matrix = cross / size**2
    weights, velocity = start, torch.zeros_like(start)
    for _ in range(iterations):
        velocity = momentum * velocity + matrix @ (weights + target)
        weights = project_to_simplex(weights - lr * velocity)
    return weights


class SDMGrad(PartsBalancer):
    r"""The common descent direction that is pulled to a target direction, estimated without bias.

    Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
    Algorithms", NeurIPS 2023. With :math:`g_0 = J^\top b` for a preference b (the mean by default),

    .. math:: w = \arg\min_{w \in \Delta} \tfrac12 \lVert J^\top w + \lambda g_0 \rVert^2, \qquad
        d = \frac{J_3^\top (w + \lambda b)}{1 + \lambda},

    the minimum by some steps of projected descent with :math:`J_1 J_2^\top` of independent batches
    for :math:`J J^\top`, from the weights of the update before. The batches are parts of one (see
    `PartsBalancer`). Large :math:`\lambda` is the target direction, zero the min-norm direction.

    Degree one in the scale of the gradients. Fragile where the two estimates hardly agree: the
    matrix is divided by its diagonal, which may then be small, and weights jump between tasks.
    Weights of absent tasks wait; the others share what they weigh together. Agrees with TorchJD's
    SDMGradWeighting under ``scale: paper`` (it adds 1e-8 to the square that the matrix is divided
    by); LibMTL's stops on NumPy 2.

    Args:
        lam: :math:`\lambda`, not negative; 0.3 in the authors' experiments and both libraries.
        preference: relative b by name, one where not named.
        lr: of the descent, positive: 10 in the authors' code and TorchJD, 5 in LibMTL.
        momentum: of the descent, in [0, 1).
        iterations: of the descent, at least 1.
        parts: 3 as published, or 2.
        scale: ``sum`` multiplies the weights by T, so that the step agrees with the plain sum of
            the losses where all rows agree; ``paper`` leaves them at a sum of one.
        seed: unused; every balancer has one.
    """

    source = "Xiao et al., NeurIPS 2023"

    def __init__(
        self,
        *,
        lam: float = 0.3,
        preference: Mapping[str, float] | None = None,
        lr: float = 10.0,
        momentum: float = 0.5,
        iterations: int = 20,
        parts: int = 3,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(parts=parts, scale=scale, seed=seed)
        if not 0 <= lam < float("inf"):
            raise ArgumentError("lam", "be finite and not negative", lam)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        if not 0 <= momentum < 1:
            raise ArgumentError("momentum", "lie in [0, 1)", momentum)
        if iterations < 1:
            raise ArgumentError("iterations", "be at least 1", iterations)
        self.lam = lam
        self.preference = Preference(preference)
        self.lr = lr
        self.momentum = momentum
        self.iterations = iterations
        self._weights = torch.zeros(0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Equal weights; checks that the preferences name entries of this run."""
        self.preference.check(self.entries)
        self._weights = torch.full((entries,), 1 / max(entries, 1), dtype=torch.float64)

    def weigh(self, cross: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Descend, and mix with the preference."""
        start, mass = restricted(self._weights, step.present)
        preference = self.preference.of(step)
        preference = preference / preference.sum()
        weights = sdmgrad_descent(
            cross,
            start,
            self.lam * preference,
            lr=self.lr,
            momentum=self.momentum,
            iterations=self.iterations,
        )
        self._weights[step.present] = weights * mass
        return (weights + self.lam * preference) / (1 + self.lam)

    def method_state(self) -> dict[str, Any]:
        """The weights of the descent."""
        return {"weights": self._weights}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._weights = state["weights"].clone()
