"""Experts one after another, each adding to the result while its tokens are in the cache."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_core.moe.bank import STACKS, Expert, ExpertBank
from mtl_core.moe.precision import as_autocast, full_precision


def add_in_turn(
    bank: ExpertBank, x: Tensor, order: Tensor, gate: Tensor, counts: list[int]
) -> Tensor:
    r"""Weighted sum of the outputs of each token's experts.

    Nothing is gathered for all experts together. For the backward pass the first products are
    kept, P·h numbers, and no outputs: with :math:`o = \operatorname{GELU}(a) W_2 + b_2` the
    gradient of a gate is :math:`\langle \partial y, o \rangle =
    \langle \partial y W_2^\top, \operatorname{GELU}(a) \rangle + \langle \partial y, b_2 \rangle`,
    whose first product the backward pass needs anyway.

    Args:
        bank: E experts.
        x: (M, D) tokens.
        order: (P,) pairs of token and place, token · K + place, in the order of experts.
        gate: (M, K) weights.
        counts: how many of the P = M·K pairs each expert has.

    Returns:
        (M, D) in the type of `x` or of autocast. It can be differentiated twice, and for several
        signals at once.
    """
    place = bank.rows()
    held = [e for e, count in enumerate(counts) if count]
    shares = _Shares(order, [counts[e] for e in held], [place[e] for e in held])
    x = as_autocast(x)
    names = (*STACKS, *(f"frozen_{name}" for name in STACKS))
    stacks = [getattr(bank, name).to(x.dtype) for name in names]
    with full_precision(x):
        y: Tensor = _InTurn.apply(shares, torch.is_grad_enabled(), x, gate.to(x.dtype), *stacks)
    return y


def inverse(order: Tensor) -> Tensor:
    """Where each of 0..P-1 is in a permutation (P,)."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return back


class _Shares(NamedTuple):
    """Which pairs each expert with any has, and where its weights are."""

    order: Tensor
    counts: list[int]
    rows: list[int]

    def split(self, gate: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Row of an expert in the stacks, its tokens (n,), their weights (n, 1)."""
        tokens = self.order.div(gate.shape[1], rounding_mode="floor")
        weights = gate.flatten().index_select(0, self.order).unsqueeze(1)
        parts = tokens.split(self.counts), weights.split(self.counts)
        return zip(self.rows, *parts, strict=True)


class _InTurn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, shares: _Shares, keep: bool, x: Tensor, gate: Tensor, *stacks: Tensor
    ) -> Tensor:
        y, inner = torch.zeros_like(x), []
        for row, tokens, weights in shares.split(gate):
            w1, b1, w2, b2 = _expert(stacks, row)
            first = torch.addmm(b1, x.index_select(0, tokens), w1)
            y.index_add_(0, tokens, torch.addmm(b2, F.gelu(first), w2).mul_(weights))
            if keep:
                inner.append(first)
        ctx.shares = shares
        ctx.save_for_backward(x, gate, *stacks, *inner)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,), shares = gradients, ctx.shares
        x, gate, *rest = ctx.saved_tensors
        stacks, inner = rest[: 2 * len(STACKS)], rest[2 * len(STACKS) :]
        _, _, to_x, _, *to_stacks = ctx.needs_input_grad
        again = torch.is_grad_enabled()
        apart = again or _is_several(dy)
        slopes = _Slopes(stacks[: len(STACKS)], shares.rows, apart) if any(to_stacks) else None
        dx, dgate = torch.zeros_like(x) if to_x else None, [gate.new_empty(0)]
        for (row, tokens, weights), first in zip(shares.split(gate), inner, strict=True):
            w1, b1, w2, b2 = _expert(stacks, row)
            rows, dout = x.index_select(0, tokens), dy.index_select(0, tokens)
            if again:
                first = torch.addmm(b1, rows, w1)  # what was kept knows nothing of x, w1 and b1
            hidden, dhidden = F.gelu(first), dout @ w2.t()
            dgate.append((dhidden * hidden).sum(1) + dout @ b2)
            dout = dout * weights
            dfirst = torch.ops.aten.gelu_backward(dhidden * weights, first)
            if slopes is not None:
                slopes.put(row, rows, dfirst, hidden, dout)
            if dx is not None:
                dx = (dx.index_add if apart else dx.index_add_)(0, tokens, dfirst @ w1.t())
        placed = torch.cat(dgate).index_select(0, inverse(shares.order)).view(gate.shape)
        none = [None] * len(STACKS)
        return None, None, dx, placed, *(none if slopes is None else slopes.stacks()), *none


class _Slopes:
    """Gradients of the trainable stacks, written where they belong.

    Args:
        learning: the stacks.
        rows: of experts with tokens.
        apart: stack them at last instead: what is differentiated again, or is several signals at
            once, cannot be written in place.
    """

    def __init__(self, learning: Sequence[Tensor], rows: list[int], apart: bool) -> None:
        self.learning, self.apart = learning, apart
        self.pieces: dict[int, list[Tensor]] = {}
        full = set(rows).issuperset(range(len(learning[1])))
        self.whole = (
            [] if apart else [(s.new_empty if full else s.new_zeros)(s.shape) for s in learning]
        )

    def put(self, row: int, rows: Tensor, dfirst: Tensor, hidden: Tensor, dout: Tensor) -> None:
        """Gradients of one expert, unless it is frozen."""
        if row >= len(self.learning[1]):
            return
        own: list[Tensor | None] = [stack[row] for stack in self.whole] or [None] * len(STACKS)
        self.pieces[row] = [
            torch.mm(rows.t(), dfirst, out=own[0]),
            torch.sum(dfirst, 0, out=own[1]),
            torch.mm(hidden.t(), dout, out=own[2]),
            torch.sum(dout, 0, out=own[3]),
        ]

    def stacks(self) -> list[Tensor]:
        """Of w1, b1, w2 and b2; zeros for experts without tokens."""
        if not self.apart:
            return self.whole
        if not self.pieces:
            return [torch.zeros_like(stack) for stack in self.learning]
        none = [torch.zeros_like(stack[0]) for stack in self.learning]
        found = [self.pieces.get(row, none) for row in range(len(self.learning[1]))]
        return [torch.stack(parts) for parts in zip(*found, strict=True)]


def _is_several(dy: Tensor) -> bool:
    """Whether it stands for several signals, as under `torch.func.vmap`: then it has no storage."""
    try:
        dy.untyped_storage()
    except NotImplementedError:
        return True
    return False


def _expert(stacks: Sequence[Tensor], row: int) -> Expert:
    """Weights of one expert: among the trainable ones, or behind them among the frozen ones."""
    beyond = row - len(stacks[1])
    chosen = stacks[: len(STACKS)] if beyond < 0 else stacks[len(STACKS) :]
    return Expert(*(stack[row if beyond < 0 else beyond] for stack in chosen))
