"""Mean without the extremes of every parameter element."""

from typing import Literal, get_args

from torch import Tensor

from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.losses import Step
from mtl_core.errors import ArgumentError, UnknownNameError

Scale = Literal["sum", "paper"]


def trimmed_mean(jacobian: Tensor, trim: int) -> Tensor:
    """Mean of every column without its `trim` largest and smallest entries.

    Args:
        jacobian: (T, n).
        trim: with 2 · trim < T.

    Returns:
        (n,); its consensus gain is one.
    """
    if trim == 0:
        return jacobian.mean(0)
    return jacobian.sort(0).values[trim : len(jacobian) - trim].mean(0)


class TrimmedMean(JacobianBalancer):
    """Averages, element by element, what is left without the largest and smallest values.

    Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning", ICML 2018,
    definition 2. Made for faulty workers; for tasks a study of robustness. Not a combination of
    rows with common weights, so no task is protected from getting worse. Where a batch has too few
    tasks, as many are trimmed as leave one (odd) or two (even). Degree one in the scale of the
    gradients. Decoders keep their own gradients. TorchJD refuses too few rows, and averages
    (``scale: paper``).

    Args:
        trim: entries to leave out at either end, not negative.
        scale: ``sum`` multiplies by the number of tasks, so that the update agrees with the plain
            sum of the losses where all tasks agree; ``paper`` leaves the mean.
        seed: unused; every balancer has one.
    """

    source = "Yin et al., ICML 2018"

    def __init__(self, *, trim: int = 1, scale: Scale = "sum", seed: int = 0) -> None:
        super().__init__(seed=seed)
        if trim < 0:
            raise ArgumentError("trim", "not be negative", trim)
        if scale not in get_args(Scale):
            raise UnknownNameError("scale", scale, get_args(Scale))
        self.trim = trim
        self.scale: Scale = scale

    def aggregate(self, jacobian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Trimmed mean of the rows, or its multiple."""
        found = trimmed_mean(jacobian, min(self.trim, (len(jacobian) - 1) // 2))
        return found * len(jacobian) if self.scale == "sum" else found
