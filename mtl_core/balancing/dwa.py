"""Dynamic weight average."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.epoch_means import EpochMeans
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.errors import ArgumentError, BalancerError

_LARGEST_RATIO = 1e6


def dwa_weights(last: Tensor, older: Tensor, tau: float) -> Tensor:
    r"""Weights (T,): :math:`T \operatorname{softmax}(\bar L(e-1) / \bar L(e-2) / \tau)`.

    Args:
        last: (T,) mean losses of the last epoch, not negative, NaN where unknown.
        older: (T,) of the epoch before, likewise. A ratio with an unknown side counts as one.
        tau: temperature.

    Example:
        >>> import torch
        >>> dwa_weights(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 1.0]), 2.0)
        tensor([0.8756, 1.1244])
    """
    ratio = last / older.clamp_min(1e-300)
    unknown = last.isnan() | older.isnan() | ((last == 0) & (older == 0))
    ratio = torch.where(unknown, 1.0, ratio.clamp_max(_LARGEST_RATIO))
    return torch.softmax(ratio / tau, 0) * len(last)


class DWA(LossBalancer):
    r"""Weighs tasks by how slowly their loss has fallen over the last two epochs.

    Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019. The
    weights are one for two epochs. Means are kept by task over the windows that have it, also
    across processes and restarts. A task that is not labelled in an epoch keeps the means of its
    last two epochs with labels. Invariant to factors of the losses; needs a run of three epochs or
    more to do anything. Negative losses raise.

    Agrees with LibMTL and with TorchJD, where the caller has to announce epochs.

    Args:
        tau: temperature, positive; large ones give equal weights.
        seed: unused; every balancer has one.
    """

    source = "Liu et al., CVPR 2019"

    def __init__(self, *, tau: float = 2.0, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if not tau > 0:
            raise ArgumentError("tau", "be positive", tau)
        self.tau = tau
        self.history = EpochMeans(0)

    def reset(self, entries: int) -> None:
        """Forget all epochs."""
        self.history = EpochMeans(entries)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of sum T from the means of the last two finished epochs."""
        last, older, _ = self.history.finished(step.present, step.epoch)
        return dwa_weights(last, older, self.tau)

    def advance(self, losses: Tensor, step: Step) -> None:
        """Add the losses to this epoch's means."""
        for entry, loss in zip(step.entries, losses.tolist(), strict=True):
            if loss < 0:
                raise BalancerError(
                    f"ratios of losses need losses that are not negative, but that of {entry} is "
                    f"{loss:.4g}."
                )
        self.history.add(losses, step.present, step.epoch)

    def method_state(self) -> dict[str, Any]:
        """Sums, counts and means by entry."""
        return self.history.state()

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.history.load(state)
