"""Improvable gaps."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.epoch_means import EpochMeans
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.stages import require_positive


class IGB(LossBalancer):
    r"""Improvable-gap balancing without a learned policy (IGBv1).

    Dai et al., "Improvable Gap Balancing for Multi-Task Learning", UAI 2023. After a
    base epoch with the mean losses :math:`\ell^0`, minimises :math:`\sum_t w_t \log \ell_t` with
    the constants :math:`w = T \operatorname{softmax}(\ell / \ell^0)`: tasks that are still close to
    where they began get more. During the base epoch :math:`w = 1`. A task's base epoch is the first
    in which it has labels.

    Losses have to be positive. Invariant to factors of the losses; as in `SI`, the step grows as
    losses fall. Follows YanqiDai/IGB4MTL; LibMTL and TorchJD do not have it. The variant with a
    soft actor-critic (IGBv2) is not offered.

    Args:
        seed: unused; every balancer has one.
    """

    source = "Dai et al., UAI 2023"

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.history = EpochMeans(0)

    def reset(self, entries: int) -> None:
        """Forget the base losses."""
        self.history = EpochMeans(entries)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of the gradients of the losses, so divided by them."""
        require_positive(losses, step, "logarithms of losses")
        base = self.history.finished(step.present, step.epoch)[2]
        # A task still in its base epoch has a gap of one beside others, as on average over it.
        gap = torch.where(base.isnan(), 1.0, losses / base)
        return torch.softmax(gap, 0) * len(losses) / losses

    def advance(self, losses: Tensor, step: Step) -> None:
        """Add to the base losses."""
        self.history.add(losses, step.present, step.epoch)

    def method_state(self) -> dict[str, Any]:
        """Base losses by entry."""
        return self.history.state()

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.history.load(state)
