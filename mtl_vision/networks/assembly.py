"""Mixtures of the same maps for several tasks at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_core.moe.precision import as_autocast, full_precision


def assemble(experts: Tensor, gates: Sequence[Tensor]) -> list[Tensor]:
    """Σ_i g_ti·E_i of every task, (B, C, h, w) each, in one batched matrix product.

    Gradients take one product for all tasks that have any, and none for the others, whose gates get
    no gradient at all.

    Args:
        experts: (B, N·C, h, w).
        gates: of every task, (B, N) or (B, h, w, N).
    """
    experts = as_autocast(experts)
    with full_precision(experts):
        return list(_Assemble.apply(experts, *(g.to(experts.dtype) for g in gates)))


class _Assemble(torch.autograd.Function):
    """The product, with a gradient that knows which tasks it is for.

    It is a batched product over samples or over positions: gates (b, T, N) times maps (b, N, m).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(experts: Tensor, *gates: Tensor) -> tuple[Tensor, ...]:
        stacked = torch.stack(gates, 1)
        batch, _, height, width = experts.shape
        if stacked.ndim == 3:
            whole = torch.bmm(stacked, _by_sample(experts, stacked.shape[-1]))
            return whole.reshape(batch, len(gates), -1, height, width).unbind(1)
        whole = torch.bmm(_gates_by_position(stacked), _by_position(experts, stacked.shape[-1]))
        spread: Tensor = _from_positions(whole, experts)
        return spread.reshape(batch, len(gates), -1, height, width).unbind(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *outgoing: Tensor | None) -> tuple[Tensor | None, ...]:
        experts, *gates = ctx.saved_tensors
        given = [i for i, g in enumerate(outgoing) if g is not None]
        found: list[Tensor | None] = [None] * (1 + len(gates))
        if not given:
            return tuple(found)
        incoming = torch.stack([g for g in outgoing if g is not None], 1)
        chosen = torch.stack([gates[i] for i in given], 1)
        batch, tasks, count = len(experts), len(given), chosen.shape[-1]
        if chosen.ndim == 3:
            flat = incoming.reshape(batch, tasks, -1)
            to_gates = torch.bmm(flat, _by_sample(experts, count).transpose(1, 2))
            to_experts = torch.bmm(chosen.transpose(1, 2), flat).reshape(experts.shape)
        else:
            height, width = experts.shape[2:]
            flat = _by_position(incoming.reshape(batch, -1, height, width), tasks)
            by_position = torch.bmm(flat, _by_position(experts, count).transpose(1, 2))
            spread = by_position.reshape(batch, height, width, tasks, count)
            to_gates = spread.permute(0, 3, 1, 2, 4)
            to_experts = _from_positions(
                torch.bmm(_gates_by_position(chosen).transpose(1, 2), flat), experts
            )
        if ctx.needs_input_grad[0]:
            found[0] = to_experts
        for position, i in enumerate(given):
            if ctx.needs_input_grad[1 + i]:
                found[1 + i] = to_gates[:, position]
        return tuple(found)


def _by_sample(maps: Tensor, count: int) -> Tensor:
    """(B, n·C, h, w) → (B, n, C·h·w)."""
    # Not len(): it would fix the batch of exported graphs.
    return maps.reshape(maps.shape[0], count, -1)


def _by_position(maps: Tensor, count: int) -> Tensor:
    """(B, n·C, h, w) → (B·h·w, n, C)."""
    batch, channels, height, width = maps.shape
    moved = maps.permute(0, 2, 3, 1)
    return moved.reshape(batch * height * width, count, channels // count)


def _gates_by_position(gates: Tensor) -> Tensor:
    """(B, T, h, w, N) → (B·h·w, T, N)."""
    batch, tasks, height, width, count = gates.shape
    return gates.permute(0, 2, 3, 1, 4).reshape(batch * height * width, tasks, count)


def _from_positions(rows: Tensor, like: Tensor) -> Tensor:
    """(B·h·w, n, C) → (B, n·C, h, w), of the batch and size of `like`."""
    batch, _, height, width = like.shape
    spread = rows.reshape(batch, height, width, rows.shape[1] * rows.shape[2])
    return spread.permute(0, 3, 1, 2)
