"""Several perceptrons of one shape as batched matrix products, and gates that mix them."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_tabular.nn.perceptron import BatchNorm, build_tower, check_widths


class Experts(nn.Module):
    """E perceptrons of equal widths, each layer one batched matrix product.

    Equal to E separate perceptrons (`mtl_tabular.nn.perceptron`): the parameters of a layer are
    stacked as (E, in, out), and one batch norm over E·out channels keeps their statistics apart.

    Shapes: (B, D), or (B, G, D) with G inputs for equal groups of experts that follow each other
    → (B, E, D of the last layer).

    Args:
        experts: E.
        widths: of the input and of every layer.
        dropout: probability in [0, 1), after every layer.
        init_std: standard deviation of initial weights, biases then start at 0; None draws both
            as `torch.nn.Linear` does.

    Raises:
        ArgumentError: there is no expert or no layer, or a width is not positive.
    """

    def __init__(
        self,
        experts: int,
        widths: Sequence[int],
        dropout: float = 0.0,
        *,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if experts < 1:
            raise ArgumentError("experts", "be at least 1", experts)
        check_widths("widths", widths, dropout, least=2)
        self.experts = experts
        self.widths = tuple(widths)
        self.init_std = init_std
        sizes = list(pairwise(widths))
        self.weights = nn.ParameterList([torch.empty(experts, i, o) for i, o in sizes])
        self.biases = nn.ParameterList([torch.empty(experts, o) for _, o in sizes])
        self.norms = nn.ModuleList([BatchNorm(experts * o) for _, o in sizes])
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if self.init_std is not None:
                nn.init.normal_(weight, std=self.init_std)
                nn.init.zeros_(bias)
            else:
                bound = weight.shape[1] ** -0.5
                nn.init.uniform_(weight, -bound, bound)
                nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of all experts."""
        x = x.unsqueeze(1) if x.ndim == 2 else x
        for weight, bias, norm in zip(self.weights, self.biases, self.norms, strict=True):
            grouped = weight.unflatten(0, (x.shape[1], -1))
            x = torch.einsum("bgi,gmio->bgmo", x, grouped).flatten(1, 2) + bias
            x = norm(x.flatten(1)).unflatten(1, (self.experts, -1))
            x = self.dropout(x.relu())
        return x


class Gate(nn.Module):
    """Mixes expert outputs by softmax weights that a linear layer reads off an input.

    Shapes: input (B, D) and experts (B, E, D') → (B, D').

    Args:
        width: D.
        experts: E.
    """

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, experts)

    def shares(self, x: Tensor) -> Tensor:
        """Weights (B, E) of the experts; every row sums to 1."""
        logits: Tensor = self.linear(x)
        return logits.softmax(-1)

    def forward(self, x: Tensor, experts: Tensor) -> Tensor:
        """The weighted mean of the experts."""
        return torch.einsum("be,bed->bd", self.shares(x), experts)


class GatedTower(nn.Module):
    """One task's side of a mixture: its gate, and the tower on what the gate mixes.

    Shapes: input (B, D), experts (B, E, D') and further vectors (B, D'') → (B, C).

    Args:
        width: D.
        experts: E.
        mixed: D' + D'', what the tower reads.
        hidden: widths of the tower's hidden layers.
        out_channels: C.
        dropout: probability in [0, 1).
    """

    def __init__(
        self,
        width: int,
        experts: int,
        mixed: int,
        hidden: Sequence[int],
        out_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.gate = Gate(width, experts)
        self.tower = build_tower(mixed, hidden, out_channels, dropout)

    def forward(self, x: Tensor, experts: Tensor, further: Sequence[Tensor] = ()) -> Tensor:
        """The task's raw prediction."""
        mixed = self.gate(x, experts)
        out: Tensor = self.tower(torch.cat([mixed, *further], 1) if further else mixed)
        return out
