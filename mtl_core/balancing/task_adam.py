"""Optimisers with moments by task, as balancers."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.row_state import RowState, load_into, state_of
from mtl_core.balancing.rowwise import Update
from mtl_core.errors import ArgumentError, BalancerError


class TaskAdam(JacobianBalancer):
    r"""Base of methods that are an optimiser with one pair of Adam moments a task.

    The direction is the finished step without its learning rate, so the module's optimiser has to
    be plain SGD; its learning rate is Adam's, its weight decay is decoupled as AdamW's. Schedulers
    that cycle momentum give SGD one (``OneCycleLR`` does without ``cycle_momentum: false``), which
    is refused. The trainer's gradient clipping would clip finished steps, whose length is about the
    root of their number: switch it off. Decoders, and an auxiliary loss beside the tasks, get Adam
    steps of their own. Bias is corrected by a task's own count of updates; absent tasks and their
    decoders keep their moments and add no step.

    Args:
        betas: shares of the former first and second moments, in [0, 1).
        eps: beside the root of the second moment, positive.
        seed: unused; every balancer has one.
    """

    def __init__(
        self, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        for i, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ArgumentError(f"betas[{i}]", "lie in [0, 1)", beta)
        if not eps > 0:
            raise ArgumentError("eps", "be positive", eps)
        self.betas = betas
        self.eps = eps
        TaskAdam.reset(self, 0)

    def reset(self, entries: int) -> None:
        """No moments."""
        self._moments = [RowState(entries), RowState(entries)]
        self._count = torch.zeros(entries, dtype=torch.float64)
        self._single: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse optimisers that would work on finished steps once more."""
        super().on_train_start(trainer, pl_module)
        for optimizer in trainer.optimizers:
            momentum = any(group.get("momentum") for group in optimizer.param_groups)
            if type(optimizer) is not torch.optim.SGD or momentum:
                found = type(optimizer).__name__ + (" with momentum" if momentum else "")
                raise BalancerError(
                    f"{type(self).__name__} keeps Adam's moments itself, a pair for every task, "
                    f"and hands the optimiser finished steps; {found} would average or scale them "
                    "once more. Use torch.optim.SGD without momentum, with the learning rate that "
                    "Adam would get (such as 1e-3), and cycle_momentum: false in a scheduler that "
                    "has it."
                )

    def advance(self, rows: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Move the moments by gradients (T, n) of the tasks present.

        Returns:
            First and second moments (T, n), and (2, T) float64 factors that correct their bias.
        """
        at = step.present
        self._count[at] += 1
        for state, beta, power in zip(self._moments, self.betas, (1, 2), strict=True):
            moment = state.read(rows, at).mul_(beta)
            if power == 1:
                moment.add_(rows, alpha=1 - beta)
            else:
                moment.addcmul_(rows, rows, value=1 - beta)
            state.write(moment, at)
        first, second = (state.read(rows, at) for state in self._moments)
        factors = torch.stack([1 / (1 - beta ** self._count[at]) for beta in self.betas])
        return first, second, factors

    def denominator(self, second: Tensor, factor: Tensor) -> Tensor:
        """Root of a corrected second moment, plus eps."""
        return second.sqrt().mul_(float(factor.sqrt())).add_(self.eps)

    def single(self, name: str, gradient: Tensor) -> Tensor:
        """Adam's step without its learning rate for one tensor with moments of its own."""
        wide = gradient.float()
        if name not in self._single:
            count = torch.zeros((), dtype=torch.float64)
            self._single[name] = [count, torch.zeros_like(wide), torch.zeros_like(wide)]
        count, first, second = (v.to(wide.device) if v.ndim else v for v in self._single[name])
        count = count + 1
        first = first * self.betas[0] + wide * (1 - self.betas[0])
        second = second * self.betas[1] + wide.square() * (1 - self.betas[1])
        self._single[name] = [count, first, second]
        corrections = [1 / (1 - beta**count) for beta in self.betas]
        return first * float(corrections[0]) / self.denominator(second, corrections[1])

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """The tasks' step, and one of its own for the gradient of an auxiliary loss."""
        found = super().update(rows, losses, step)
        buffer, scale = self._buffer, self.loss_scale()
        if buffer is not None and buffer.has_aux:
            buffer.aux.copy_(self.single("", buffer.aux / scale) * scale)
        return found

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Steps for the decoders of the tasks present too."""
        super().finish(module, losses, step)
        scale = self.loss_scale()
        names = {id(p): name for name, p in module.network.named_parameters()}
        present = {entry.partition("/")[0] for entry in step.entries}
        for task, parameters in self.parameters_of(module).own.items():
            if task not in present:
                continue
            for parameter in parameters:
                if parameter.grad is not None:
                    taken = self.single(names[id(parameter)], parameter.grad / scale)
                    parameter.grad = (taken * scale).to(parameter.dtype)

    def method_state(self) -> dict[str, Any]:
        """Moments of the shared rows by task, and of every other tensor by name."""
        return {
            "moments": state_of(self._moments),
            "count": self._count,
            "single": {name: list(kept) for name, kept in self._single.items()},
        }

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        load_into(self._moments, state["moments"])
        self._count = state["count"].clone()
        self._single = {n: [v.clone() for v in kept] for n, kept in state["single"].items()}
