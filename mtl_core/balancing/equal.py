"""Equal weights: the plain sum of the losses."""

from typing import Literal

import torch
from torch import Tensor

from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step


class Equal(LossBalancer):
    """Weight one for every task, the baseline to beat (Xin et al., NeurIPS 2022).

    Training with it equals training without a balancer, except that labels spread unevenly over
    processes are averaged exactly. Static weights of the tasks (`Task.weight`) apply before.
    LibMTL calls it EW, TorchJD Sum and Mean.

    Args:
        reduction: ``sum`` of the losses, or their ``mean`` over the tasks present.
        seed: unused; every balancer has one.

    Example:
        >>> import torch
        >>> balancer = Equal()
        >>> balancer.entries = ("a", "b")
        >>> balancer.weigh(torch.tensor([2.0, 3.0]), balancer.step(("a", "b"))).tolist()
        [1.0, 1.0]
    """

    source = "baseline; Xin et al., NeurIPS 2022"

    def __init__(self, *, reduction: Literal["sum", "mean"] = "sum", seed: int = 0) -> None:
        super().__init__(seed=seed)
        check_choice("reduction", reduction, ("sum", "mean"))
        self.reduction = reduction

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Ones (T,), or ones over T."""
        ones = torch.ones_like(losses)
        return ones if self.reduction == "sum" else ones / len(losses)
