"""Walks through one graph that serve methods which look at a batch more than once."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_core.balancing.losses import TaskLosses
from mtl_core.balancing.rows import (
    RowBuffer,
    accumulate,
    decoder_pass,
    trunk_gradient,
    trunk_rows,
)
from mtl_core.nn.parts import ParameterSplit


class EntryGradients(NamedTuple):
    """Gradients of one loss.

    Args:
        entry: whose loss.
        shared: of the shared parameters, None where unreached.
        parameters: the decoders' parameters that the loss may reach.
        own: of those.
    """

    entry: str
    shared: list[Tensor | None]
    parameters: list[nn.Parameter]
    own: list[Tensor | None]


def own_parameters(split: ParameterSplit, entry: str, *, border: bool) -> list[nn.Parameter]:
    """Parameters of decoders that an entry's loss may reach: all of them without a border."""
    return split.own[entry.partition("/")[0]] if border else split.all_own()


def aux_pass(
    buffer: RowBuffer, step: TaskLosses, factor: Tensor | None, split: ParameterSplit
) -> None:
    """Add the auxiliary loss' gradients to `buffer` and the decoders' ``.grad``; keeps the graph.

    Args:
        buffer: of the shared parameters.
        step: whose ``aux`` is walked, if there is one.
        factor: derivative of the trainer's loss by it.
        split: whose parameters are whose.
    """
    if step.aux is None or not step.aux.requires_grad:
        return
    others = split.all_own()
    found = torch.autograd.grad(
        step.aux,
        [*split.shared, *others],
        grad_outputs=factor,
        retain_graph=True,
        allow_unused=True,
    )
    buffer.add_aux(found[: len(split.shared)])
    accumulate(others, found[len(split.shared) :])


def entry_passes(
    step: TaskLosses, factors: Tensor, split: ParameterSplit, *, batched: bool = False
) -> Iterator[EntryGradients]:
    """Gradients of every loss by itself; nothing is written to ``.grad``, the graph is used up.

    Args:
        step: with a cut, every decoder is walked once and the trunk once a loss.
        factors: (T,) of the losses.
        split: whose parameters are whose.
        batched: walk the trunk once for all losses, vectorised.
    """
    entries, shared = list(step.losses), split.shared
    if step.cut and step.features is not None:
        at_cut, own = decoder_pass(step, factors, split)
        border = step.features.tensors()
        if batched and any(f.requires_grad for f in border):
            rows = trunk_rows(border, [at_cut[e] for e in entries], shared)
            for entry, row in zip(entries, rows, strict=True):
                yield EntryGradients(entry, row, split.own[step.owner[entry]], own[entry])
            return
        for i, entry in enumerate(entries):
            keep = i < len(entries) - 1
            row = trunk_gradient(border, at_cut[entry], shared, retain_graph=keep)
            yield EntryGradients(entry, row, split.own[step.owner[entry]], own[entry])
        return
    others = split.all_own()
    for i, entry in enumerate(entries):
        found = torch.autograd.grad(
            step.losses[entry],
            [*shared, *others],
            grad_outputs=factors[i],
            retain_graph=i < len(entries) - 1,
            allow_unused=True,
        )
        yield EntryGradients(entry, list(found[: len(shared)]), others, list(found[len(shared) :]))


def summed_pass(
    step: TaskLosses, factors: Tensor, split: ParameterSplit, *, trunk: bool = True
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Gradients of the weighted sum of the losses, with one walk; the graph is used up.

    Args:
        step: the losses.
        factors: (T,) of the losses.
        split: whose parameters are whose.
        trunk: whether the trunk is walked; without, its gradients are None.

    Returns:
        Gradients of the shared parameters, and of all decoders' in the order of
        ``split.all_own()``. Nothing is written to ``.grad``.
    """
    shared, others = split.shared, split.all_own()
    nothing: list[Tensor | None] = [None] * len(shared)
    if not step.losses:
        return nothing, [None] * len(others)
    if step.cut and step.features is not None:
        at_cut, own = decoder_pass(step, factors, split)
        place = {id(p): i for i, p in enumerate(others)}
        gathered: list[Tensor | None] = [None] * len(others)
        for entry, gradients in own.items():
            for parameter, gradient in zip(split.own[step.owner[entry]], gradients, strict=True):
                at = place[id(parameter)]
                gathered[at] = _plus(gathered[at], gradient)
        if not trunk:
            return nothing, gathered
        border = step.features.tensors()
        total: list[Tensor | None] = [None] * len(border)
        for gradients in at_cut.values():
            total = [_plus(a, b) for a, b in zip(total, gradients, strict=True)]
        return trunk_gradient(border, total, shared, retain_graph=False), gathered
    wanted = [*shared, *others] if trunk else others
    found: list[Tensor | None] = [None] * len(wanted)
    if wanted:
        losses = list(step.losses.values())
        found = list(
            torch.autograd.grad(
                losses, wanted, grad_outputs=list(factors.unbind()), allow_unused=True
            )
        )
    return (found[: len(shared)], found[len(shared) :]) if trunk else (nothing, found)


def _plus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return first if second is None else second
    return first + second
