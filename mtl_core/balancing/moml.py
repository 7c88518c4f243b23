"""Multi-objective meta learning of the weights."""

from typing import Literal

import torch
from torch import Tensor

from mtl_core.balancing.bilevel import BilevelBalancer, softmax_gradient
from mtl_core.balancing.lookahead import LookAhead
from mtl_core.balancing.moved_weights import MovedWeights
from mtl_core.balancing.solvers import min_norm_point


def common_descent(hypergradients: Tensor) -> Tensor:
    """Shortest convex combination of rows of unit length; zero rows are left out.

    Args:
        hypergradients: (T, P) float64, one row an outer loss.

    Returns:
        (P,).
    """
    norms = torch.linalg.vector_norm(hypergradients, dim=1)
    alive = norms > 0
    if not bool(alive.any()):
        return torch.zeros_like(hypergradients[0])
    rows = hypergradients[alive] / norms[alive, None]
    found: Tensor = min_norm_point(rows @ rows.t()) @ rows
    return found


class MOML(BilevelBalancer):
    r"""Learns weights along a direction that lowers all outer losses at once.

    Ye et al., "Multi-Objective Meta Learning", NeurIPS 2021 (AIJ 2024), with one inner step, as in
    LibMTL's ``trainer.py``: for the logits :math:`\alpha`, weights :math:`w =
    \operatorname{softmax}(\alpha)` and :math:`\theta' = \theta - \eta \sum_s w_s \nabla
    \ell_s^{in}(\theta)`, every outer loss has the hypergradient

    .. math:: \frac{\partial \ell_t^{out}}{\partial \alpha} = -\eta \sum_s \langle \nabla
        \ell_t^{out}(\theta'), \nabla \ell_s^{in}(\theta) \rangle \,
        \frac{\partial w_s}{\partial \alpha} .

    They are brought to unit length and combined by `MGDA`'s shortest vector; Adam moves the
    logits along it. One walk a task of either half batch, all parameters included, and a (T, n)
    buffer. Two tasks with two logits always have parallel hypergradients: where these oppose each
    other, the logits stay.

    The weights reach the decoders, as published. Degree one in the scale of all losses.

    Args:
        lr: learning rate of the logits.
        inner_lr: see `BilevelBalancer`; LibMTL's 0.1.
        scale: see `BilevelBalancer`.
        seed: unused; every balancer has one.
    """

    source = "Ye et al., NeurIPS 2021"
    walks = "1 and 2T halves"

    def __init__(
        self,
        *,
        lr: float = 1e-4,
        inner_lr: float | None = 0.1,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(lr=lr, inner_lr=inner_lr, scale=scale, seed=seed)

    def look(self, ahead: LookAhead) -> tuple[list[str], Tensor] | None:
        """Hypergradients of all outer losses, combined."""
        length = self.step_length()
        with MovedWeights(ahead.parameters):
            half = ahead.evaluate(0)
            inner = list(half.means)
            if not inner:
                return None
            rows = ahead.rows(half)
            weights = torch.tensor(list(self.weights_of(inner).values())).to(rows)
            ahead.move(weights @ rows, -length)
            outer = ahead.rows(ahead.evaluate(1))
        if not len(outer):
            return None
        by_weight = -length * products(outer, rows)
        if not bool(torch.isfinite(by_weight).all()):
            return None
        return inner, common_descent(softmax_gradient(self.logits_of(inner), by_weight))


def products(first: Tensor, second: Tensor) -> Tensor:
    """Inner products (S, T) in float64 on the CPU of rows (S, n) and (T, n)."""
    total = first.new_zeros(len(first), len(second), dtype=torch.float64)
    for left, right in zip(first.split(1 << 18, dim=1), second.split(1 << 18, dim=1), strict=True):
        total += left.double() @ right.double().t()
    return total.cpu()
