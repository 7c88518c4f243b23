"""One walk of the trunk with what a method makes of the gradients at its border."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from mtl_core.balancing.losses import TaskLosses
from mtl_core.balancing.ranks import sum_over_ranks
from mtl_core.balancing.rows import accumulate, decoder_pass, trunk_gradient
from mtl_core.errors import BalancerError
from mtl_core.nn.parts import ParameterSplit


class Merged(NamedTuple):
    """What a method makes of the gradients of the features.

    Args:
        gradient: (m,) that walks the trunk.
        weights: (T,) behind it, where there are such.
        decoders: (T,) factors of the decoders' gradients; None leaves them as they are.
    """

    gradient: Tensor
    weights: Tensor | None = None
    decoders: Tensor | None = None


@dataclass(frozen=True)
class Border:
    """Gradients of one micro-batch's features, by task.

    Args:
        features: the tensors of the border, m numbers in all.
        rows: (T, m) float32 unscaled gradients of the entries present on any rank; zero where this
            rank has none.
        scale: the loss scale that was taken off.
    """

    features: list[Tensor]
    rows: Tensor
    scale: float

    def walk(
        self,
        gradient: Tensor,
        parameters: Sequence[nn.Parameter] | Sequence[GradientEdge],
        *,
        retain_graph: bool,
    ) -> list[Tensor | None]:
        """Gradients of parameters, or at edges of the trunk's graph, loss scale included.

        Args:
            gradient: (m,) at the border.
            parameters: of the trunk, or edges.
            retain_graph: for further walks.
        """
        parts = (gradient * self.scale).split([f.numel() for f in self.features])
        outgoing: list[Tensor | None] = [
            part.view(f.shape).to(f.dtype) for part, f in zip(parts, self.features, strict=True)
        ]
        return trunk_gradient(self.features, outgoing, parameters, retain_graph=retain_graph)


def merge_at_border(
    step: TaskLosses,
    scaled: Tensor,
    split: ParameterSplit,
    present: Sequence[str],
    shares: dict[str, float],
    scale: float,
    merge: Callable[[Border], Merged],
) -> Merged:
    """Walk the decoders once, let `merge` act, walk the trunk once; leaves local ``.grad``.

    Args:
        step: losses on cut copies of the features.
        scaled: the trainer's multiple of the summed loss.
        split: whose parameters are whose.
        present: entries with labels on any rank.
        shares: this rank's share in the labels by entry.
        scale: the loss scale.
        merge: gradient at the border from the tasks' gradients there.

    Raises:
        BalancerError: the losses were not computed behind a border.
    """
    if step.features is None:
        raise BalancerError(
            "gradients of the features need decoders behind a border (in a hand-written loop, "
            "decoders that work on the sides of `cut`)."
        )
    factors, aux_factor = step.factors(scaled)
    share = torch.tensor([shares[e] for e in step.losses], dtype=factors.dtype)
    at_cut, own = decoder_pass(step, factors * share.to(factors.device), split)
    features = step.features.tensors()
    absent: list[Tensor | None] = [None] * len(features)
    rows = torch.stack([_flat(features, at_cut.get(e, absent)) for e in present])
    border = Border(features, rows if scale == 1.0 else rows / scale, scale)
    merged = merge(border)
    decoders = [1.0] * len(present) if merged.decoders is None else merged.decoders.tolist()
    factor_of = dict(zip(present, decoders, strict=True))
    for entry, gradients in own.items():
        factor = factor_of[entry]
        if factor != 1.0:
            gradients = [None if g is None else g * factor for g in gradients]
        accumulate(split.own[step.owner[entry]], gradients)
    aux = step.aux if step.aux is not None and step.aux.requires_grad else None
    accumulate(
        split.shared, border.walk(merged.gradient, split.shared, retain_graph=aux is not None)
    )
    if aux is not None:
        everything = [*split.shared, *split.all_own()]
        found = torch.autograd.grad(aux, everything, grad_outputs=aux_factor, allow_unused=True)
        accumulate(everything, found)
    return merged


def walk_losses(
    step: TaskLosses,
    scaled: Tensor,
    split: ParameterSplit,
    shares: dict[str, float],
    weights: dict[str, float],
) -> None:
    """One weighted walk where decoders interact; leaves local ``.grad``.

    The decoders' own gradients stay unweighted, for which they are walked twice.

    Args:
        step: losses.
        scaled: the trainer's multiple of the summed loss.
        split: whose parameters are whose.
        shares: this rank's share in the labels by entry.
        weights: of the losses in the shared part, by entry.
    """
    factors, aux_factor = step.factors(scaled)
    shared, own = split.shared, split.all_own()
    each = [f * shares[e] for e, f in zip(step.losses, factors.unbind(), strict=True)]
    weighted = [f * weights[e] for e, f in zip(step.losses, each, strict=True)]
    losses = list(step.losses.values())
    aux = step.aux if step.aux is not None and step.aux.requires_grad else None
    for parameters, outgoing, last in ((own, each, False), (shared, weighted, aux is None)):
        if losses and parameters:
            found = torch.autograd.grad(
                losses, parameters, outgoing, retain_graph=not last, allow_unused=True
            )
            accumulate(parameters, found)
    if aux is not None:
        everything = [*shared, *own]
        found = torch.autograd.grad(aux, everything, aux_factor, allow_unused=True)
        accumulate(everything, found)


def finite_on_all_ranks(rows: Tensor) -> Tensor:
    """Which rows (T,) hold no NaN or infinity on any rank; every rank has to call it."""
    return sum_over_ranks((~torch.isfinite(rows.sum(1))).float()) == 0


def _flat(features: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    parts = [
        torch.zeros(f.numel(), device=f.device) if g is None else g.float().flatten()
        for f, g in zip(features, gradients, strict=True)
    ]
    return torch.cat(parts)
