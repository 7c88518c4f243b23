"""Gradient sign dropout."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.losses import Step
from mtl_core.errors import ArgumentError, UnknownNameError


def graddrop(jacobian: Tensor, draws: Tensor, leak: Tensor) -> Tensor:
    r"""Keep one sign per column, drawn by its purity.

    The purity of a column is :math:`P = \tfrac12 (1 + \sum_t v_t / \sum_t |v_t|)`; with
    :math:`U \sim \mathcal U(0, 1)` positive entries stay where :math:`P > U`, negative ones
    elsewhere (Chen et al., NeurIPS 2020, eq. 1 and algorithm 1). Its mean over the draws is
    :math:`P \sum_{v>0} v + (1-P) \sum_{v<0} v`. A column of zeros gives zero.

    Args:
        jacobian: (T, n).
        draws: (n,) uniform numbers in [0, 1).
        leak: (T,) share in [0, 1] of each task's gradient that passes unmasked.

    Returns:
        (n,) sum of what was kept.
    """
    total = jacobian.abs().sum(0)
    purity = 0.5 * (1 + jacobian.sum(0) / total.clamp_min(torch.finfo(total.dtype).tiny))
    keep_positive = purity > draws
    mask = torch.where(keep_positive, jacobian > 0, jacobian < 0).to(jacobian.dtype)
    share = leak[:, None]
    return (jacobian * (share + (1 - share) * mask)).sum(0)


class GradDrop(JacobianBalancer):
    """Drops, element by element, all gradients of one sign (Chen et al., NeurIPS 2020).

    Works on the gradients of the shared parameters. The authors' code masks gradients of the
    features instead, times the sign of the feature; the rule per element is the same. Where all
    tasks agree in sign nothing is dropped.

    Args:
        leak: share of a task's gradient that is never dropped, by task, in [0, 1]; absent tasks
            have 0.
        seed: of the draws.
    """

    source = "Chen et al., NeurIPS 2020"

    def __init__(self, *, leak: Mapping[str, float] | None = None, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.leak = dict(leak or {})
        for task, share in self.leak.items():
            if not 0 <= share <= 1:
                raise ArgumentError(f"leak[{task!r}]", "lie in [0, 1]", share)

    def reset(self, entries: int) -> None:
        """Check that the leaks name entries of this run."""
        for task in self.leak:
            if task not in self.entries:
                raise UnknownNameError("leak", task, self.entries)

    def aggregate(self, jacobian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Direction for one draw per parameter element."""
        generator = torch.Generator(jacobian.device).manual_seed(step.generator.initial_seed())
        draws = torch.rand(jacobian.shape[1], generator=generator, device=jacobian.device)
        leak = torch.tensor([self.leak.get(e, 0.0) for e in step.entries]).to(jacobian)
        return graddrop(jacobian, draws, leak)
