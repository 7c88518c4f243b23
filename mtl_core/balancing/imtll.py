"""Learned loss scales of impartial multi-task learning."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.scalars import LearnedScalars
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError


class IMTLL(LossBalancer):
    r"""Loss part of impartial multi-task learning: scales that make all losses equal.

    Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021: the objective is
    :math:`\sum_t e^{s_t} \ell_t - s_t`; its minimum over :math:`s_t` is at
    :math:`s_t = -\log \ell_t`, where the scaled losses are one and the value is
    :math:`1 + \log \ell_t` (hence the update of `SI`). It is twice UW's at :math:`-s_t`.

    The :math:`s_t` are learned here by Adam without weight decay, outside the model's optimiser;
    absent tasks keep theirs. They start at zero, the plain sum. TorchJD's IMTLL and LibMTL's IMTL
    leave them to the model's optimiser, with its learning rate and, in LibMTL, its weight decay.
    Losses have to be positive. The gradient part is `IMTLG`.

    Args:
        lr: learning rate of the :math:`s_t`, positive.
        init: their start, minus log units of the loss.
        seed: unused; every balancer has one.
    """

    source = "Liu et al., ICLR 2021"

    def __init__(self, *, lr: float = 0.025, init: float = 0.0, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        if not abs(init) < float("inf"):
            raise ArgumentError("init", "be finite", init)
        self.lr = lr
        self.init = init
        self.scalars = LearnedScalars(0, lr=lr)

    def reset(self, entries: int) -> None:
        """Start all :math:`s_t` at `init`."""
        self.scalars = LearnedScalars(entries, lr=self.lr, init=self.init)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Scales (T,) of the losses."""
        require_positive(losses, step, "learned scales of losses")
        return torch.exp(self.scalars.values[step.present])

    def advance(self, losses: Tensor, step: Step) -> None:
        """One step of the :math:`s_t` of the entries present."""
        self.scalars.step(self.weigh(losses, step) * losses - 1, step.present)

    def method_state(self) -> dict[str, Any]:
        """Log scales and the moments of their optimiser."""
        return self.scalars.state()

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.scalars.load(state)
