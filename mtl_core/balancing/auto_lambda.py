"""Weights that help chosen tasks, by a finite-difference hypergradient."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtl_core.balancing.bilevel import BilevelBalancer, softmax_gradient
from mtl_core.balancing.lookahead import LookAhead
from mtl_core.balancing.moved_weights import MovedWeights
from mtl_core.errors import UnknownNameError


class AutoLambda(BilevelBalancer):
    r"""Learns weights under which one step lowers the loss of the primary tasks the most.

    Liu, James, Davison and Johns, "Auto-Lambda: Disentangling Dynamic Task Relationships", TMLR
    2022, eq. 3 to 5: with the virtual step :math:`\theta' = \theta - \eta \nabla \sum_t w_t
    \ell_t^{in}(\theta)` and :math:`v = \nabla \sum_{p} \ell_p^{out}(\theta')` over the primary
    tasks,

    .. math:: \frac{\partial}{\partial w_t} \approx -\eta \,
        \frac{\ell_t^{in}(\theta + \epsilon v) - \ell_t^{in}(\theta - \epsilon v)}{2 \epsilon},
        \qquad \epsilon = 0.01 / \lVert v \rVert .

    That needs no second derivatives: the half batch is evaluated at four points and walked back
    at two of them. Inner and outer halves are those of the batch (`BilevelBalancer`). The weights
    are a softmax of logits that start equal, as in LibMTL; the authors learn the weights
    themselves, from 0.1 on.

    Fragile: the differences are of the order of 0.01 times a gradient's length, so that autocast
    to 16 bits drowns all but steep losses in rounding; use 32-bit precision. They reach the
    decoders, as published. Degree one in the scale of all losses; rescaling one of them changes the
    weights.

    Args:
        primary: tasks that the outer loss sums; empty takes all.
        lr: learning rate of the logits; the authors' 1e-4.
        inner_lr: see `BilevelBalancer`.
        scale: see `BilevelBalancer`.
        seed: unused; every balancer has one.
    """

    source = "Liu et al., TMLR 2022"
    walks = "2 and 4 halves"

    def __init__(
        self,
        *,
        primary: Sequence[str] = (),
        lr: float = 1e-4,
        inner_lr: float | None = None,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        self.primary = tuple(primary)
        super().__init__(lr=lr, inner_lr=inner_lr, scale=scale, seed=seed)

    def reset(self, entries: int) -> None:
        """Check the primary tasks' names too."""
        super().reset(entries)
        known = {name for e in self.entries for name in (e, e.partition("/")[0])}
        for name in self.primary if entries else ():
            if name not in known:
                raise UnknownNameError("primary", name, known)

    def look(self, ahead: LookAhead) -> tuple[list[str], Tensor] | None:
        """Central difference along the outer gradient at the virtual step."""
        length = self.step_length()
        with MovedWeights(ahead.parameters):
            inner = ahead.evaluate(0)
            tasks = list(inner.means)
            if not tasks:
                return None
            ahead.move(ahead.gradient(inner, self.weights_of(tasks)), -length)
            outer = ahead.evaluate(1)
            wanted = [e for e in outer.means if self._is_primary(e)]
            direction = ahead.gradient(outer, dict.fromkeys(wanted, 1.0))
        norm = float(torch.linalg.vector_norm(direction, dtype=torch.float64))
        if not 0 < norm < float("inf"):
            return None
        sides = []
        for sign in (1.0, -1.0):
            with MovedWeights(ahead.parameters), torch.no_grad():
                ahead.move(direction, sign * 0.01 / norm)
                means = ahead.evaluate(0).means
            sides.append(torch.tensor([means[e] for e in tasks], dtype=torch.float64))
        by_weight = -length * (sides[0] - sides[1]) * (norm / 0.02)
        factor = len(tasks) if self.scale == "sum" else 1
        return tasks, softmax_gradient(self.logits_of(tasks), by_weight) * factor

    def _is_primary(self, entry: str) -> bool:
        return not self.primary or bool({entry, entry.partition("/")[0]} & set(self.primary))
