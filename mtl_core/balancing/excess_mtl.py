"""Weights by estimated excess risk."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.row_state import RowState, load_into, state_of
from mtl_core.balancing.rows import combine
from mtl_core.balancing.rowwise import Update
from mtl_core.errors import ArgumentError, UnknownNameError

Scale = Literal["sum", "paper"]


def excess_risks(jacobian: Tensor, roots: Tensor) -> Tensor:
    r"""Estimated excess risks :math:`\sum_i g_{ti}^2 / \sqrt{S_{ti}}`.

    Args:
        jacobian: (T, n).
        roots: (T, n) square roots of the sums of all squares so far, the present ones included.

    Returns:
        (T,) float64 on the CPU; elements that never had a gradient add nothing.
    """
    tiny = torch.finfo(roots.dtype).tiny
    found = []
    for row, root in zip(jacobian, roots, strict=True):  # temporaries of n numbers, not T times n
        found.append((row * (row / root.clamp_min(tiny))).sum(dtype=torch.float64))
    return torch.stack(found).cpu()


class ExcessMTL(JacobianBalancer):
    r"""Weighs tasks by how far they are, by estimate, from their own optimum.

    He, Zhou, Zhao and Zhao, "Robust Multi-Task Learning with Excess Risks", ICML 2024, eq. 6 to 9:
    with :math:`S_t \leftarrow S_t + g_t^2`, element by element, the excess risk is :math:`e_t =
    \sum_i g_{ti}^2 / \sqrt{S_{ti}}`, taken relative to its start :math:`e^0_t`, and the weights on
    the simplex move by :math:`w \leftarrow \mathrm{softmax}(\log w + \eta\, e / e^0)`. A task whose
    labels are noise stops getting weight when its gradients cease to help.

    During the first `warmup` updates of a task the weights stay and :math:`e^0` is averaged; the
    paper takes three epochs, its code (and ``warmup: 0``) the first update. Roots are kept in place
    of sums, whose range float32 does not hold, and the constant :math:`10^{-7}` under them is left
    out, so weights depend on no loss's scale; the update is of degree one. Weights reach the
    decoders: the paper weighs losses. LibMTL starts at weights of one each; TorchJD starts at 1/T
    as here and applies the raw :math:`e` in the first step if there is no warm-up. Tasks absent
    from a batch keep their state, and their weight. State: one number a parameter and task.

    Args:
        eta: rate of the weights, positive. LibMTL's 0.01; TorchJD's 1 puts all weight on one task
            within a dozen updates.
        warmup: updates of a task before its weight moves, not negative.
        scale: ``sum`` multiplies the weights by the number of tasks, so that the update agrees with
            the plain sum of the losses where all tasks agree; ``paper`` leaves them.
        weight_decoders: multiply decoder gradients by the weights.
        seed: unused; every balancer has one.
    """

    source = "He et al., ICML 2024"

    def __init__(
        self,
        *,
        eta: float = 0.01,
        warmup: int = 0,
        scale: Scale = "sum",
        weight_decoders: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if not eta > 0:
            raise ArgumentError("eta", "be positive", eta)
        if warmup < 0:
            raise ArgumentError("warmup", "not be negative", warmup)
        if scale not in get_args(Scale):
            raise UnknownNameError("scale", scale, get_args(Scale))
        self.eta = eta
        self.warmup = warmup
        self.scale: Scale = scale
        self.weight_decoders = weight_decoders
        self.reset(0)

    def reset(self, entries: int) -> None:
        """Equal weights; no gradients seen."""
        self._roots = RowState(entries)
        self._log_weights = torch.zeros(entries, dtype=torch.float64)
        self._first = torch.zeros(entries, dtype=torch.float64)
        self._count = torch.zeros(entries, dtype=torch.float64)
        self._latest = torch.zeros(0, dtype=torch.float64)

    def aggregate(self, jacobian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weighted sum of the rows; the weights move first."""
        at = step.present
        roots = self._roots.read(jacobian, at).hypot_(jacobian)
        self._roots.write(roots, at)
        self._move(excess_risks(jacobian, roots), at)
        weights = torch.softmax(self._log_weights[at], 0)
        self._latest = weights * (len(weights) if self.scale == "sum" else 1)
        return combine(jacobian, self._latest)

    def _move(self, excess: Tensor, at: Tensor) -> None:
        count, first = self._count[at], self._first[at]
        learning = (count < max(self.warmup, 1)) & (excess > 0)
        first = torch.where(learning, (first * count + excess) / (count + 1), first)
        moving = (count >= self.warmup) & (first > 0)
        relative = torch.where(moving, excess / torch.where(first > 0, first, 1.0), 0.0)
        # The present tasks keep what they weigh together: the others' weights are out of play.
        former = self._log_weights[at]
        moved = former + self.eta * relative
        self._log_weights[at] = moved + former.logsumexp(0) - moved.logsumexp(0)
        self._first[at] = first
        self._count[at] = count + (excess > 0)

    def decoder_factors(self, losses: Tensor, step: Step) -> Tensor | None:
        """The weights."""
        return self._latest if self.weight_decoders else None

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """The direction, with the weights for the log."""
        return super().update(rows, losses, step)._replace(weights=self._latest)

    def method_state(self) -> dict[str, Any]:
        """Roots of the sums of squares, log weights, first excess risks, counts."""
        return {
            "roots": state_of([self._roots]),
            "log_weights": self._log_weights,
            "first": self._first,
            "count": self._count,
        }

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        load_into([self._roots], state["roots"])
        self._log_weights = state["log_weights"].clone()
        self._first = state["first"].clone()
        self._count = state["count"].clone()
