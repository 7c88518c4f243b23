"""Tokens to their experts and back, in interchangeable ways that agree."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe.bank import ExpertBank
from mtl_core.moe.grouped import grouped_linear, has_grouped
from mtl_core.moe.in_turn import add_in_turn, inverse

Backend: TypeAlias = Literal["sorted", "loop", "dense", "capacity", "gather"]
"""How tokens get to their experts.

| name | how | exact | for |
|---|---|---|---|
| ``sorted`` | tokens in the order of their experts, one product an expert | yes | all training |
| ``loop`` | gathers each expert's tokens, one after another | yes | tests |
| ``dense`` | all experts on all tokens: E / K times the work | yes | tiny models, safest export |
| ``capacity`` | a fixed number of tokens an expert: static shapes | unless one overflows | export |
| ``gather`` | the weights of each token's experts | yes | few tokens |
"""

# From here on `gather` would hold copies of weights beyond all proportion.
GATHER_LIMIT = 64


def dispatch(
    bank: ExpertBank,
    x: Tensor,
    idx: Tensor,
    gate: Tensor,
    *,
    backend: Backend = "sorted",
    capacity: float = 1.25,
) -> Tensor:
    """Weighted sum of the outputs of each token's experts.

    Args:
        bank: E experts.
        x: (M, D) tokens.
        idx: (M, K) int64 experts of each token, different ones.
        gate: (M, K) their weights.
        backend: see `Backend`; all but ``capacity`` agree to rounding, in gradients too.
        capacity: of ``capacity``: an expert takes ceil(capacity · K · M / E) tokens, those with the
            largest weights; E / K always suffices. Further ones lose this expert (`overflow`).

    Returns:
        (M, D) in the type of `x`.

    Raises:
        UnknownNameError: there is no such back end.
        ArgumentError: shapes do not fit, or there are too many tokens for ``gather``.
    """
    if backend not in BACKENDS:
        raise UnknownNameError("backend", backend, get_args(Backend))
    if x.ndim != 2 or idx.shape != gate.shape or len(idx) != len(x):
        shapes = tuple(x.shape), tuple(idx.shape), tuple(gate.shape)
        raise ArgumentError("x, idx and gate", "be (M, D), (M, K) and (M, K)", shapes)
    if backend == "capacity":
        return by_capacity(bank, x, idx, gate, capacity)
    return BACKENDS[backend](bank, x, idx, gate)


def by_loop(bank: ExpertBank, x: Tensor, idx: Tensor, gate: Tensor) -> Tensor:
    """The definition: every expert's tokens gathered, computed and added."""
    y = torch.zeros_like(x)
    for number, expert in enumerate(bank.experts()):
        rows, slots = (idx == number).nonzero(as_tuple=True)
        y = y.index_add(0, rows, expert(x[rows]) * gate[rows, slots, None].to(x.dtype))
    return y


def by_order(bank: ExpertBank, x: Tensor, idx: Tensor, gate: Tensor) -> Tensor:
    """Pairs of token and expert in the order of experts, one product an expert with any.

    The expert-by-expert order of M³ViT (section 3.3): one expert's weights are needed at a time. On
    CUDA one grouped product takes all experts, where torch has it for the type.
    """
    pairs = idx.flatten()
    order = pairs.argsort(stable=True)
    if has_grouped(x, bank.hidden):
        w1, b1, w2, b2 = bank.stacks()
        ends = torch.bincount(pairs, minlength=bank.num_experts).cumsum(0)
        back = inverse(order)
        rows: Tensor = _Spread.apply(x, order, back, idx.shape[1])
        hidden = F.gelu(grouped_linear(rows, w1, b1, pairs[order], ends))
        found = grouped_linear(hidden, w2, b2, pairs[order], ends)
        own: Tensor = _Permute.apply(found, back, order)
        weights = gate.to(own.dtype).unsqueeze(1)
        return torch.bmm(weights, own.view(*idx.shape, own.shape[1])).squeeze(1)
    return add_in_turn(bank, x, order, gate, segments(pairs, bank.num_experts))


def segments(pairs: Tensor, num_experts: int) -> list[int]:
    """How many of the pairs (P,) each expert has; equal shares on ``meta``, to count costs."""
    if pairs.device.type == "meta":
        each, more = divmod(len(pairs), num_experts)
        return [each + (e < more) for e in range(num_experts)]
    counts: list[int] = torch.bincount(pairs, minlength=num_experts).tolist()
    return counts


def by_mask(bank: ExpertBank, x: Tensor, idx: Tensor, gate: Tensor) -> Tensor:
    """All experts on all tokens, weighted by zero where they were not chosen."""
    w1, b1, w2, b2 = (stack.to(x.dtype) for stack in bank.stacks())
    weights = gate.new_zeros(len(x), bank.num_experts).scatter(1, idx, gate).to(x.dtype)
    hidden = F.gelu(torch.baddbmm(b1.unsqueeze(1), x.expand(len(w1), -1, -1), w1))
    found = torch.baddbmm(b2.unsqueeze(1), hidden, w2)
    return torch.einsum("me,emd->md", weights, found)


def by_capacity(
    bank: ExpertBank, x: Tensor, idx: Tensor, gate: Tensor, capacity: float = 1.25
) -> Tensor:
    """A fixed number of tokens an expert, those with the largest weights."""
    count = places(len(x), idx.shape[1], bank.num_experts, capacity)
    w1, b1, w2, b2 = (stack.to(x.dtype) for stack in bank.stacks())
    chosen = torch.zeros(len(x), bank.num_experts, dtype=torch.bool, device=x.device)
    chosen = chosen.scatter(1, idx, torch.ones_like(idx, dtype=torch.bool))
    weights = gate.new_zeros(len(x), bank.num_experts).scatter(1, idx, gate)
    ranked = weights.detach().masked_fill(~chosen, -1.0)
    tokens = ranked.topk(count, 0).indices.t()
    kept = (weights * chosen).t().gather(1, tokens).to(x.dtype)
    rows = x.index_select(0, tokens.flatten()).view(*tokens.shape, x.shape[1])
    found = torch.baddbmm(b2.unsqueeze(1), F.gelu(torch.baddbmm(b1.unsqueeze(1), rows, w1)), w2)
    return torch.zeros_like(x).index_add(
        0, tokens.flatten(), (found * kept.unsqueeze(2)).flatten(0, 1)
    )


def by_gather(bank: ExpertBank, x: Tensor, idx: Tensor, gate: Tensor) -> Tensor:
    """The weights of each token's experts, side by side."""
    if len(x) > GATHER_LIMIT:
        rule = f"be at most {GATHER_LIMIT} for the back end gather, which copies weights"
        raise ArgumentError("the number of tokens", rule, len(x))
    w1, b1, w2, b2 = (stack.to(x.dtype)[idx] for stack in bank.stacks())
    hidden = F.gelu(torch.einsum("md,mkdh->mkh", x, w1) + b1)
    found = torch.einsum("mkh,mkhd->mkd", hidden, w2) + b2
    return torch.einsum("mk,mkd->md", gate.to(x.dtype), found)


def places(tokens: int, top_k: int, num_experts: int, capacity: float) -> int:
    """Tokens that an expert takes: ceil(capacity · K · M / E), at most M, at least 1 of any."""
    if not capacity > 0:
        raise ArgumentError("capacity", "be positive", capacity)
    return min(tokens, max(1, math.ceil(capacity * top_k * tokens / num_experts)))


def overflow(idx: Tensor, num_experts: int, capacity: float) -> Tensor:
    """How many pairs of token and expert the back end ``capacity`` drops: ().

    Args:
        idx: (..., K) experts of all tokens that are dispatched together.
        num_experts: E.
        capacity: see `dispatch`.
    """
    limit = places(idx[..., 0].numel(), idx.shape[-1], num_experts, capacity)
    counts = torch.bincount(idx.flatten(), minlength=num_experts)
    return (counts - limit).clamp_min(0).sum()


BACKENDS: dict[str, Callable[[ExpertBank, Tensor, Tensor, Tensor], Tensor]] = {
    "sorted": by_order,
    "loop": by_loop,
    "dense": by_mask,
    "capacity": by_capacity,
    "gather": by_gather,
}


class _Spread(torch.autograd.Function):
    """Each token K times, in the order of experts. Its gradient adds K rows, without scattering."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.top_k = top_k
        return x.index_select(0, order.div(top_k, rounding_mode="floor"))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        own = gradients[0].index_select(0, back)
        return own.view(len(own) // ctx.top_k, ctx.top_k, own.shape[1]).sum(1), None, None, None


class _Permute(torch.autograd.Function):
    """Rows in another order; its gradient is the rows in the first order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradients[0].index_select(0, back), None, None
