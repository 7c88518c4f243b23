"""Auxiliary losses of gates over shared experts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_core.moe.balance import cv_squared


def gate_balance(gates: Sequence[Tensor]) -> Tensor:
    """Squared coefficient of variation of the experts' importance.

    The importance of an expert is the sum of its weights over tasks and samples, as in Shazeer et
    al. (ICLR 2017, eq. 6 and 7), here averaged over positions. The result is 0 where all are used
    equally, E where one is used alone.

    Args:
        gates: of every task, (B, E) or (B, h, w, E).
    """
    importance = torch.stack([_by_sample(g).sum(0) for g in gates]).sum(0)
    return cv_squared(importance)


def gate_entropy(gates: Sequence[Tensor]) -> Tensor:
    """Mean entropy of the gates in nats, between 0 and ln E.

    Args:
        gates: of every task, (B, E) or (B, h, w, E).
    """
    return torch.stack([torch.special.entr(g).sum(-1).mean() for g in gates]).mean()


def _by_sample(gate: Tensor) -> Tensor:
    return gate.flatten(1, -2).mean(1) if gate.ndim > 2 else gate
