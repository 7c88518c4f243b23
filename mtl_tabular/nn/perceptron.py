"""Multi-layer perceptrons, and batch norm that survives a batch of one row."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.errors import ArgumentError


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over rows; a training batch of one row is treated as in evaluation.

    One row has no batch statistics, and an epoch may well end on a batch of one row. Such a batch
    is normalised by the running statistics, which it leaves as they are; its gradients flow as
    usual. Every other batch is treated by `torch.nn.BatchNorm1d`.

    Shapes: (B, D) → (B, D).

    Example:
        >>> import torch
        >>> norm = BatchNorm(3)
        >>> tuple(norm(torch.ones(1, 3)).shape), int(norm.num_batches_tracked)
        ((1, 3), 0)
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalised rows."""
        if not self.training or input.shape[0] > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def check_widths(argument: str, widths: Sequence[int], dropout: float, *, least: int = 1) -> None:
    """Refuse widths that are not positive, too few of them, and impossible dropout.

    Raises:
        ArgumentError: names `argument`, or ``dropout``.
    """
    if len(widths) < least or any(width < 1 for width in widths):
        raise ArgumentError(argument, f"hold at least {least} positive widths", tuple(widths))
    if not 0 <= dropout < 1:
        raise ArgumentError("dropout", "lie in [0, 1)", dropout)


def perceptron(widths: Sequence[int], dropout: float, *, norm: bool = True) -> nn.Sequential:
    """Layers of given widths, each Linear, batch norm, ReLU and dropout.

    Args:
        widths: of the input and of every layer; the input's alone gives the identity.
        dropout: probability in [0, 1).
        norm: False leaves batch norm out.
    """
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        layers.append(nn.Linear(widths[i], widths[i + 1]))
        if norm:
            layers.append(BatchNorm(widths[i + 1]))
        layers += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def build_tower(
    width: int, hidden: Sequence[int], out_channels: int, dropout: float, *, norm: bool = True
) -> nn.Sequential:
    """One task's head: hidden layers as in `perceptron`, then Linear to its channels.

    Args:
        width: D of its input (B, D).
        hidden: widths of the hidden layers; none of them makes the head linear.
        out_channels: C of its output (B, C).
        dropout: probability in [0, 1).
        norm: False leaves batch norm out.
    """
    last = nn.Linear((width, *hidden)[-1], out_channels)
    return nn.Sequential(*perceptron((width, *hidden), dropout, norm=norm), last)
