"""Uncertainty weighting."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.errors import ArgumentError


class UW(LossBalancer):
    r"""Homoscedastic uncertainty as learned weights.

    Kendall, Gal and Cipolla, CVPR 2018, eq. 7 and 10.

    With :math:`s_t = \log \sigma_t^2` the objective is
    :math:`\sum_t \tfrac12 e^{-s_t} \ell_t + \tfrac12 s_t`; its minimum over :math:`s_t` is at
    :math:`s_t = \log \ell_t`. The factor one half is used for every task, as LibMTL and TorchJD do.
    The :math:`s_t` are learned here by Adam without weight decay, outside the model's optimiser, so
    neither its learning rate nor gradient clipping touches them. Absent tasks keep theirs.

    Args:
        lr: learning rate of the :math:`s_t`, positive.
        init: their start, in log units of the loss.
        seed: unused; every balancer has one.
    """

    def __init__(self, *, lr: float = 0.025, init: float = 0.0, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        self.lr = lr
        self.init = init
        self.log_variance = torch.zeros(0, dtype=torch.float64)
        self._moments = torch.zeros(2, 0, dtype=torch.float64)
        self._count = torch.zeros(0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Start all :math:`s_t` at `init`."""
        self.log_variance = torch.full((entries,), self.init, dtype=torch.float64)
        self._moments = torch.zeros(2, entries, dtype=torch.float64)
        self._count = torch.zeros(entries, dtype=torch.float64)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Half the precision of every task, (T,)."""
        return 0.5 * torch.exp(-self.log_variance[step.present])

    def advance(self, losses: Tensor, step: Step) -> None:
        """One Adam step (Kingma and Ba 2015; 0.9, 0.999) on the entries present, counted each."""
        at = step.present
        gradient = 0.5 - self.weigh(losses, step) * losses
        self._count[at] += 1
        first = self._moments[0, at] * 0.9 + gradient * 0.1
        second = self._moments[1, at] * 0.999 + gradient.square() * 0.001
        self._moments[0, at], self._moments[1, at] = first, second
        unbiased = first / (1 - 0.9 ** self._count[at])
        spread = (second / (1 - 0.999 ** self._count[at])).sqrt()
        self.log_variance[at] -= self.lr * unbiased / (spread + 1e-8)

    def method_state(self) -> dict[str, Any]:
        """Log variances and the moments of their optimiser."""
        return {
            "log_variance": self.log_variance,
            "moments": self._moments,
            "count": self._count,
        }

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.log_variance = state["log_variance"].clone()
        self._moments = state["moments"].clone()
        self._count = state["count"].clone()
