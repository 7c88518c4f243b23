"""Methods that only weigh losses: one ordinary backward, any precision, any strategy."""

from abc import abstractmethod

import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.losses import Step, TaskLosses


class LossBalancer(Balancer):
    """Turns T losses into T weights; the weights reach the decoders too.

    A method writes `weigh`, and `advance` where it learns. Weights are applied to every micro-batch
    of a window with the state of its beginning; the state advances once, on the window's mean
    losses.
    """

    @abstractmethod
    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) float64 for losses (T,) float64, both on the CPU and without graph."""

    def advance(self, losses: Tensor, step: Step) -> None:
        """Advance the state after a window. Default: stateless."""

    def penalty(self, losses: TaskLosses) -> Tensor | None:
        """A further differentiable scalar, added outside of the weights. Default: none."""
        return None

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """One backward of the weighted sum."""
        present = [e for e in self.entries if e in means]
        values = torch.tensor([means[e] for e in present], dtype=torch.float64)
        weights = dict(zip(present, self.weigh(values, self.step(present)).tolist(), strict=True))
        factors, aux_factor = step.factors(scaled)
        roots = list(step.losses.values())
        gradients = [
            f * (weights[e] * shares[e]) for e, f in zip(step.losses, factors.unbind(), strict=True)
        ]
        extra = self.penalty(step)
        if extra is not None:
            roots.append(extra)
            gradients.append(factors.mean())
        if step.aux is not None and aux_factor is not None and step.aux.requires_grad:
            roots.append(step.aux)
            gradients.append(aux_factor)
        if step.idle is not None:
            roots.append(step.idle)
            gradients.append(torch.zeros_like(step.idle))
        if roots:
            torch.autograd.backward(roots, gradients)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Record the weights and advance the state."""
        weights = self.weigh(losses, step)
        self.weights.update(zip(step.entries, weights.tolist(), strict=True))
        if bool(torch.isfinite(losses).all()):
            self.advance(losses, step)
