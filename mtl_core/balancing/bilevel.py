"""Methods that learn the weights of losses by looking at the other half of the batch."""

from abc import abstractmethod
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.lookahead import LookAhead, enough_samples
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.scalars import LearnedScalars
from mtl_core.errors import ArgumentError, BalancerError


def softmax_gradient(logits: Tensor, by_weight: Tensor) -> Tensor:
    r"""Gradient by logits from a gradient by their softmax: :math:`p \odot (h - p \cdot h)`.

    Args:
        logits: (T,).
        by_weight: :math:`h`, (..., T).

    Returns:
        Shaped as `by_weight`.
    """
    weights = torch.softmax(logits, 0)
    return weights * (by_weight - (by_weight @ weights)[..., None])


class BilevelBalancer(LossBalancer):
    r"""Weights are a softmax of learned logits, moved so that the other half of the batch gains.

    The batch is dealt to an inner and an outer half in turn. A virtual step of gradient descent on
    the inner half's weighted loss, from which the weights come back bit for bit, says how the outer
    half's losses depend on the logits; the model's own step is then on the whole batch. The logits
    move once a window, by an Adam of their own, after the model's gradient was taken: the published
    loops move them before, on further batches. Random numbers of all passes over a batch are the
    same, BatchNorm statistics move in the first only. Batches of fewer than four samples on any
    process are passed over.

    Args:
        lr: learning rate of the logits, positive.
        inner_lr: length of the virtual step, positive; None takes the learning rate of the
            trainer's optimiser (of its first group).
        scale: ``sum`` multiplies the softmax by T; ``paper`` leaves weights that sum to one.
        seed: unused; every balancer has one.
    """

    needs = "moved weights"
    wants_replay = True

    def __init__(
        self,
        *,
        lr: float,
        inner_lr: float | None,
        scale: Literal["sum", "paper"],
        seed: int,
    ) -> None:
        super().__init__(seed=seed)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        if inner_lr is not None and not 0 < inner_lr < float("inf"):
            raise ArgumentError("inner_lr", "be positive and finite, or null", inner_lr)
        check_choice("scale", scale, ("sum", "paper"))
        self.lr = lr
        self.inner_lr = inner_lr
        self.scale = scale
        self.reset(0)

    def reset(self, entries: int) -> None:
        """Equal weights."""
        self.scalars = LearnedScalars(entries, lr=self.lr)
        self._gradient = torch.zeros(2, entries, dtype=torch.float64)

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse strategies that do not let weights be moved."""
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise BalancerError(
                f"{type(self).__name__} moves whole parameters, which "
                f"{type(trainer.strategy).__name__} does not offer. Use one device, or "
                "strategy: ddp."
            )
        return super().check(trainer, module)

    @abstractmethod
    def look(self, ahead: LookAhead) -> tuple[list[str], Tensor] | None:
        """Gradient (P,) float64 by the logits of some entries, or None where there is none.

        The weights may be moved, inside of `MovedWeights`. Every rank has to come to the same.
        """

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Softmax of the logits of the entries present."""
        return self._weights(step.present)

    def weights_of(self, entries: list[str]) -> dict[str, float]:
        """Weights of some entries by name."""
        return dict(zip(entries, self._weights(self.positions(entries)).tolist(), strict=True))

    def logits_of(self, entries: list[str]) -> Tensor:
        """Their logits (P,)."""
        return self.scalars.values[self.positions(entries)]

    def positions(self, entries: list[str]) -> Tensor:
        """Their positions (P,) among all."""
        return torch.tensor([self.entries.index(e) for e in entries], dtype=torch.int64)

    def _weights(self, at: Tensor) -> Tensor:
        weights = torch.softmax(self.scalars.values[at], 0)
        return weights * len(at) if self.scale == "sum" else weights

    def step_length(self) -> float:
        """Length of the virtual step.

        Raises:
            BalancerError: there is no optimiser to ask.
        """
        if self.inner_lr is not None:
            return self.inner_lr
        if self._trainer is None or not self._trainer.optimizers:
            raise BalancerError(
                f"{type(self).__name__} takes inner_lr from the trainer's optimiser; give it a "
                "number here."
            )
        return float(self._trainer.optimizers[0].param_groups[0]["lr"])

    def ahead(self, module: Balanceable, step: TaskLosses) -> LookAhead | None:
        """The batch in two halves; None where it is too small on a rank."""
        split = self.parameters_of(module)
        parameters = [*split.shared, *split.all_own()]
        if not parameters or not enough_samples(step, parameters[0].device):
            return None
        return LookAhead(
            step,
            parameters,
            self.entries,
            scale=self.loss_scale(),
            name=type(self).__name__,
        )

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """One backward of the weighted sum, then the look ahead."""
        super().collect(module, step, scaled, means, shares)
        ahead = self.ahead(module, step)
        found = None if ahead is None else self.look(ahead)
        if found is not None and bool(torch.isfinite(found[1]).all()):
            at = self.positions(found[0])
            self._gradient[0, at] += found[1]
            self._gradient[1, at] += 1

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Move the logits of the entries that were looked at."""
        super().finish(module, losses, step)
        self._gradient.zero_()

    def advance(self, losses: Tensor, step: Step) -> None:
        """One step of Adam down the window's mean gradient."""
        at = self._gradient[1].nonzero()[:, 0]
        if len(at):
            self.scalars.step(self._gradient[0, at] / self._gradient[1, at], at)

    def method_state(self) -> dict[str, Any]:
        """Logits and the moments of their optimiser."""
        return self.scalars.state()

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.scalars.load(state)
