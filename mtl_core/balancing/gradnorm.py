"""Learned weights that equalise training rates."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.scalars import LearnedScalars
from mtl_core.balancing.stages import Stages, require_positive
from mtl_core.errors import ArgumentError

_LEAST = 1e-3


def grad_norm_gradient(weights: Tensor, norms: Tensor, rates: Tensor, alpha: float) -> Tensor:
    r"""Gradient of GradNorm's objective by the weights.

    The objective is :math:`\sum_t |w_t N_t - \mathrm{sg}[\bar N \rho_t^\alpha]|` with :math:`\bar
    N` the mean of :math:`w_t N_t` and :math:`\rho_t` the training rate over its mean (Chen et al.,
    ICML 2018, eq. 1 and 2). Since the norm of a weighted loss's gradient is the weight times the
    norm, no second derivatives are involved.

    Args:
        weights: :math:`w`, (T,).
        norms: :math:`N`, (T,) lengths of the unweighted gradients.
        rates: :math:`\ell_t / \ell_t(0)`, (T,).
        alpha: strength of the pull to a common rate.

    Returns:
        (T,) in units of the mean norm.
    """
    norms = norms / norms.mean()
    weighted = weights * norms
    target = weighted.mean() * (rates / rates.mean()).pow(alpha)
    return torch.sign(weighted - target) * norms


class GradNorm(GradientBalancer):
    r"""Learns weights that bring the weighted gradients to lengths set by the training rates.

    Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm", ICML 2018: lengths are taken in the last
    shared layer, targets are :math:`\bar N \rho_t^\alpha` (`grad_norm_gradient`), the weights are
    moved by an Adam of their own and brought to a sum of T after every step. Tasks that train
    slower than the others get more weight. Weights reach the decoders, as published.

    The losses at the start are means over the first `warmup` updates, during which weights
    stay one: a single unlucky batch would distort every later target. Weights stay above 0.001, a
    bound that the paper does not have. Fragile for tasks whose loss has a floor far above zero
    (their rate never falls) and for tasks with losses that start near zero; losses have to be
    positive. Degree one in the scale of the gradients, any scale. LibMTL takes all shared
    parameters, parametrises the weights by a softmax and trains them with the model's optimiser.

    Args:
        alpha: strength of the pull to a common training rate, not negative; the paper's 1.5.
        lr: learning rate of the weights, positive.
        warmup: updates that an entry's initial loss is averaged over, at least 1.
        stages: options common to all methods of this family; by default the last shared layer, and
            weighted decoders.
        seed: unused; every balancer has one.
    """

    source = "Chen et al., ICML 2018"
    needs = "norms"
    walks = "1"

    def __init__(
        self,
        *,
        alpha: float = 1.5,
        lr: float = 0.025,
        warmup: int = 20,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        default = Stages(gram="last_layer", weight_decoders=True)
        super().__init__(stages=default if stages is None else stages, seed=seed)
        if not alpha >= 0:
            raise ArgumentError("alpha", "not be negative", alpha)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        if warmup < 1:
            raise ArgumentError("warmup", "be at least 1", warmup)
        self.alpha = alpha
        self.lr = lr
        self.warmup = warmup
        self.scalars = LearnedScalars(0, lr=lr, init=1.0)
        self._sum = torch.zeros(0, dtype=torch.float64)
        self._count = torch.zeros(0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Weights of one; no initial losses."""
        self.scalars = LearnedScalars(entries, lr=self.lr, init=1.0)
        self._sum = torch.zeros(entries, dtype=torch.float64)
        self._count = torch.zeros(entries, dtype=torch.float64)

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """The weights as they are; they learn afterwards."""
        at = step.present
        require_positive(torch.where(losses == 0, 1.0, losses), step, "training rates")
        weights = self.scalars.values[at].clone()
        weights = weights * (len(weights) / weights.sum())
        fresh = self._count[at] < self.warmup
        self._sum[at[fresh]] += losses[fresh]
        self._count[at[fresh]] += 1
        if not bool(fresh.any()) and len(at) > 1:
            self._learn(weights, gramian.diagonal().sqrt(), losses, at)
        return weights

    def _learn(self, weights: Tensor, norms: Tensor, losses: Tensor, at: Tensor) -> None:
        initial = self._sum[at] / self._count[at]
        rates = losses / torch.where(initial > 0, initial, 1.0)
        if not float(rates.mean()) > 0:
            return
        total = self.scalars.values[at].sum()
        self.scalars.step(grad_norm_gradient(weights, norms, rates, self.alpha), at)
        moved = self.scalars.values[at].clamp_min(_LEAST)
        self.scalars.values[at] = moved * (total / moved.sum())

    def method_state(self) -> dict[str, Any]:
        """Weights with their optimiser, sums and counts of initial losses."""
        return {"scalars": self.scalars.state(), "sum": self._sum, "count": self._count}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.scalars.load(state["scalars"])
        self._sum = state["sum"].clone()
        self._count = state["count"].clone()
