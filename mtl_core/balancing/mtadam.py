"""Adam with moments by task, and gradients of equal length."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.preference import Preference
from mtl_core.balancing.row_state import row_norms
from mtl_core.balancing.task_adam import TaskAdam
from mtl_core.errors import ArgumentError, BalancerError


class MTAdam(TaskAdam):
    r"""Adam steps of all tasks over their largest second moment, at the length of an anchor task's.

    Malkiel and Wolf, "MTAdam: Automatic Balancing of Multiple Training Loss Terms", EMNLP 2021, and
    their code. In every parameter tensor each task's gradient is brought to the average length
    (over steps) of the anchor's, the first task that has one there, times the task's rank; moments
    are kept by task and the step is :math:`\sum_t \hat m_t / \max_s (\sqrt{\hat v_s} +
    \varepsilon)`. It takes the place of the optimiser: the module's has to be plain
    ``torch.optim.SGD``, whose learning rate is Adam's (others are refused). Decoders, on which one
    task's gradient acts alone, get plain Adam steps, on which ranks cancel.

    Degree zero, as long as gradients are well above `eps`; no loss's scale matters. A task that was
    absent enters with its kept average, an absent anchor is represented by its own. The code's
    threshold of :math:`10^{-10}` below which a length counts as zero is zero here. Outside of a fit
    all columns count as one tensor. Switch the trainer's gradient clipping off: it would clip
    finished steps. State: two numbers a parameter and task. Neither LibMTL nor TorchJD has it.

    Args:
        ranks: relative importance by task name; one where not named.
        betas: shares of the former first and second moments, in [0, 1).
        beta_norm: share of the former average length, in [0, 1).
        eps: beside the root of the second moment, positive.
        seed: unused; every balancer has one.
    """

    source = "Malkiel & Wolf, EMNLP 2021"

    def __init__(
        self,
        *,
        ranks: Mapping[str, float] | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        beta_norm: float = 0.9,
        eps: float = 1e-8,
        seed: int = 0,
    ) -> None:
        if not 0 <= beta_norm < 1:
            raise ArgumentError("beta_norm", "lie in [0, 1)", beta_norm)
        super().__init__(betas=betas, eps=eps, seed=seed)
        self.ranks = Preference(ranks, argument="ranks")
        self.beta_norm = beta_norm
        self._lengths = torch.zeros(0, 0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """No moments or lengths; check that ranks name entries of this run."""
        super().reset(entries)
        self.ranks.check(self.entries)
        self._lengths = torch.zeros(entries, 0, dtype=torch.float64)

    def aggregate(self, jacobian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Steps of all tasks over their largest denominator."""
        rows = self._rescaled(jacobian, step)
        first, second, factors = self.advance(rows, step)
        largest = torch.zeros_like(jacobian[0])
        direction = torch.zeros_like(jacobian[0])
        for t in range(len(jacobian)):
            torch.maximum(largest, self.denominator(second[t], factors[1, t]), out=largest)
            direction.add_(first[t], alpha=float(factors[0, t]))
        return direction.div_(largest)

    def _rescaled(self, jacobian: Tensor, step: Step) -> Tensor:
        """The rows, tensor by tensor at the anchor's length times the rank."""
        sizes = [jacobian.shape[1]] if self._buffer is None else self.column_sizes()
        rows = jacobian.clone()
        parts = rows.split(sizes, 1)
        lengths = torch.stack([row_norms(part) for part in parts], 1).cpu()
        average = self._average(lengths, step.present)
        known = self._lengths > 0
        anchor = self._lengths.gather(0, known.int().argmax(0, keepdim=True))
        factors = self.ranks.raw(step)[:, None] * anchor / torch.where(average > 0, average, 1.0)
        for part, factor in zip(parts, factors.unbind(1), strict=True):
            part.mul_(factor.to(part)[:, None])
        return rows

    def _average(self, lengths: Tensor, at: Tensor) -> Tensor:
        """Average lengths (P, K) of the entries present; their first ones are taken as they are."""
        if not self._lengths.shape[1]:
            self._lengths = torch.zeros(len(self._count), lengths.shape[1], dtype=torch.float64)
        if self._lengths.shape[1] != lengths.shape[1]:
            raise BalancerError(
                f"lengths were kept for {self._lengths.shape[1]} shared tensors, this batch has "
                f"{lengths.shape[1]}. Keep the set of trainable shared parameters fixed."
            )
        mixed = self.beta_norm * self._lengths[at] + (1 - self.beta_norm) * lengths
        average = torch.where(self._count[at][:, None] > 0, mixed, lengths)
        self._lengths[at] = average
        return average

    def method_state(self) -> dict[str, Any]:
        """Moments and average lengths."""
        return super().method_state() | {"lengths": self._lengths}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        super().load_method_state(state)
        self._lengths = state["lengths"].clone()
