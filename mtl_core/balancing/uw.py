"""Uncertainty weighting."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.scalars import LearnedScalars
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

    source = "Kendall et al., CVPR 2018"

    def __init__(self, *, lr: float = 0.025, init: float = 0.0, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        self.lr = lr
        self.init = init
        self.scalars = LearnedScalars(0, lr=lr)

    def reset(self, entries: int) -> None:
        """Start all :math:`s_t` at `init`."""
        self.scalars = LearnedScalars(entries, lr=self.lr, init=self.init)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Half the precision of every task, (T,)."""
        return 0.5 * torch.exp(-self.scalars.values[step.present])

    def advance(self, losses: Tensor, step: Step) -> None:
        """One step of the :math:`s_t` of the entries present."""
        self.scalars.step(0.5 - self.weigh(losses, step) * losses, step.present)

    def method_state(self) -> dict[str, Any]:
        """Log variances and the moments of their optimiser."""
        return self.scalars.state()

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.scalars.load(state)
