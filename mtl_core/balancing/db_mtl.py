"""Balance of losses by a logarithm, of gradients by their lengths."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.row_state import RowState, load_into, row_norms, state_of
from mtl_core.balancing.rows import combine
from mtl_core.balancing.rowwise import Update
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError

_LOSS_FLOOR = 1e-8


def equal_length_weights(norms: Tensor) -> Tensor:
    """Weights (T,) that bring all rows to the length of the longest; zero for a row of zeros."""
    return torch.where(norms > 0, norms.max() / norms, 0.0)


class DBMTL(JacobianBalancer):
    r"""Log losses, gradients averaged over steps, and all of them brought to the greatest length.

    Lin et al., "Dual-Balancing for Multi-Task Learning", Neural Networks 2026 (arXiv 2308.12029),
    algorithm 1: :math:`\hat g_t \leftarrow \beta_k \hat g_t + (1 - \beta_k) \nabla \log(\ell_t +
    10^{-8})` and the update :math:`\max_s \|\hat g_s\| \sum_t \hat g_t / \|\hat g_t\|`, with
    :math:`\beta_k = \beta / k^\sigma`. The authors search :math:`\beta` among 0.1, 0.5 and 0.9 with
    :math:`\sigma` 0 or 0.5. The average starts at zero and is not corrected for it: the first
    step is :math:`1 - \beta_1` of its size. With ``beta: 0`` nothing is kept.

    Decoders get the gradient of the log loss, unweighted. Neither direction nor length depend on
    the scale of any loss; with ``log: false`` the update is of degree one in the scale of the
    gradients. Two tasks never get worse to first order with ``beta: 0``, more may. Losses must not
    be negative with the logarithm. State: one gradient a task. The paper's :math:`10^{-8}` beside
    lengths is left out; a task without gradient adds nothing. TorchJD has no such method.

    Args:
        beta: share of the former average in the new one, in [0, 1).
        sigma: :math:`\sigma`, not negative.
        log: whether log losses are balanced, or the losses themselves.
        weight_decoders: whether decoders get the gradient of the log loss too. Has to be false for
            tasks with groups.
        seed: unused; every balancer has one.
    """

    source = "Lin et al., Neural Networks 2026"

    def __init__(
        self,
        *,
        beta: float = 0.9,
        sigma: float = 0.0,
        log: bool = True,
        weight_decoders: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if not 0 <= beta < 1:
            raise ArgumentError("beta", "lie in [0, 1)", beta)
        if not sigma >= 0:
            raise ArgumentError("sigma", "not be negative", sigma)
        self.beta = beta
        self.sigma = sigma
        self.logarithm = log  # Lightning puts a method `log` on every callback
        self.weight_decoders = weight_decoders
        self.reset(0)

    def reset(self, entries: int) -> None:
        """Averages of zero."""
        self._average = RowState(entries)
        self._count = torch.zeros(entries, dtype=torch.float64)
        self._latest = torch.zeros(0, dtype=torch.float64)

    def aggregate(self, jacobian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Sum of the averages at equal length; the averages advance."""
        slopes = self._slopes(losses, step)
        at = step.present
        if self.beta == 0:
            weights = equal_length_weights(row_norms(jacobian).cpu() * slopes) * slopes
            self._latest = weights
            return combine(jacobian, weights)
        self._count[at] += 1
        kept = (self.beta / self._count[at] ** self.sigma).to(jacobian)[:, None]
        fresh = (1 - kept) * slopes.to(jacobian)[:, None]
        average = self._average.read(jacobian, at).mul_(kept).addcmul_(jacobian, fresh)
        self._average.write(average, at)
        self._latest = equal_length_weights(row_norms(average).cpu())
        return combine(average, self._latest)

    def _slopes(self, losses: Tensor, step: Step) -> Tensor:
        """Derivatives (T,) of the transformed losses."""
        if not self.logarithm:
            return torch.ones_like(losses)
        require_positive(losses + _LOSS_FLOOR, step, "logarithms of losses")
        return 1 / (losses + _LOSS_FLOOR)

    def decoder_factors(self, losses: Tensor, step: Step) -> Tensor | None:
        """Slope of the logarithm."""
        if not self.logarithm or not self.weight_decoders:
            return None
        return self._slopes(losses, step)

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """The direction, with the averages' weights for the log."""
        return super().update(rows, losses, step)._replace(weights=self._latest)

    def method_state(self) -> dict[str, Any]:
        """Averages and counts."""
        return {"average": state_of([self._average]), "count": self._count}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        load_into([self._average], state["average"])
        self._count = state["count"].clone()
