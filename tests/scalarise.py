"""Weights from differentiating a scalarisation, to compare closed forms with."""

from collections.abc import Callable

import torch
from torch import Tensor


def slopes(scalarise: Callable[[Tensor], Tensor], losses: Tensor) -> Tensor:
    """Derivatives (T,) of a scalar function of losses (T,)."""
    leaf = losses.clone().requires_grad_()
    (found,) = torch.autograd.grad(scalarise(leaf), leaf)
    return found


def draw_losses(seed: int, tasks: int = 4) -> Tensor:
    """Positive losses (T,) float64 over two decades."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tasks, dtype=torch.float64, generator=generator).exp()
