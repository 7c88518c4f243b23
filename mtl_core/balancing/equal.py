"""Equal weights: the plain sum of the losses."""

import torch
from torch import Tensor

from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step


class Equal(LossBalancer):
    """Weight one for every task, the baseline to beat (Xin et al., NeurIPS 2022).

    Training with it equals training without a balancer, except that labels spread unevenly over
    processes are averaged exactly. Static weights of the tasks (`Task.weight`) apply before.

    Example:
        >>> import torch
        >>> balancer = Equal()
        >>> balancer.entries = ("a", "b")
        >>> balancer.weigh(torch.tensor([2.0, 3.0]), balancer.step(("a", "b"))).tolist()
        [1.0, 1.0]
    """

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Ones (T,)."""
        return torch.ones_like(losses)
