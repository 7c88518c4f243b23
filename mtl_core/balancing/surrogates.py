"""Gramians that cost less than T walks of the trunk, and approximate the exact one."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mtl_core.balancing.border import Border
from mtl_core.balancing.feature import inner_over_ranks
from mtl_core.balancing.ghost import layer_gramian
from mtl_core.balancing.linear_use import linear_use
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import share_labels, sum_over_ranks, world_size
from mtl_core.balancing.rows import RowBuffer, add_rows, gramian, kept_graphs
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.nn.parts import ParameterSplit, SharedNetwork


def surrogate_gramian(
    stages: Stages,
    border: Border,
    step: TaskLosses,
    network: SharedNetwork,
    split: ParameterSplit,
    update: Step,
) -> Tensor:
    """Gramian (T, T) float64 by ``stages.gram``: last_layer, feature or subsample.

    Equal on all ranks, in the order of ``update.entries``; not finite where a gradient is not.
    """
    if stages.gram == "feature":
        return inner_over_ranks(border.rows)
    if stages.gram == "last_layer":
        parameters = last_layer(network, split, stages.layer)
        use = linear_use(border.features, parameters) if world_size() == 1 else None
        if use is not None:
            walks = [border.walk(row, [use.edge], retain_graph=True)[0] for row in border.rows]
            signals = torch.stack(cast("list[Tensor]", walks))  # all reach it: it was found so
            return layer_gramian(use.inputs.float(), signals.float(), use.bias) / border.scale**2
        buffer = RowBuffer(parameters, len(update.entries))
        for i, row in enumerate(border.rows):
            buffer.add(i, border.walk(row, parameters, retain_graph=True))
        return _over_ranks(buffer.rows) / border.scale**2
    return _part_gramian(stages.parts, step, split, update, border.scale)


def last_layer(network: SharedNetwork, split: ParameterSplit, name: str) -> Sequence[nn.Parameter]:
    """Shared parameters of the layer whose rows stand for those of the whole trunk.

    Args:
        network: that holds them.
        split: whose parameters are whose.
        name: dotted name of a module; empty takes the last one, in order of registration, that owns
            a shared matrix.

    Raises:
        UnknownNameError: no module is called so.
        ArgumentError: the module holds no trainable shared parameter.
    """
    shared = {id(p) for p in split.shared}
    if name:
        modules = dict(network.named_modules())
        if name not in modules:
            raise UnknownNameError("stages.layer", name, modules)
        found = [p for p in modules[name].parameters() if id(p) in shared]
        if not found:
            raise ArgumentError("stages.layer", "hold trainable shared parameters", name)
        return found
    found = []
    for _, module in network.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) in shared]
        if any(p.ndim > 1 for p in own):
            found = own
    return found or list(split.shared[-1:])


def _part_gramian(
    parts: int, step: TaskLosses, split: ParameterSplit, update: Step, scale: float
) -> Tensor:
    """Exact rows of one in so many samples, another part in every update."""
    if step.recompute is None:
        raise BalancerError("gram: subsample needs a module that can evaluate a batch again.")
    count = min(parts, max(1, step.size))
    part = step.recompute(part=slice(update.index % count, None, count))
    device = split.shared[0].device
    _, shares = share_labels(part, update.entries, device)
    buffer = RowBuffer(split.shared, len(update.entries))
    index = {entry: i for i, entry in enumerate(update.entries)}
    if part.losses:
        with kept_graphs():
            add_rows(buffer, part, part.total * scale, split, index, shares, rows_only=True)
    buffer.complete()
    return _over_ranks(buffer.rows) / scale**2


def _over_ranks(rows: Tensor) -> Tensor:
    """Gramian of the mean rows over ranks."""
    size = world_size()
    return gramian(rows if size == 1 else sum_over_ranks(rows.clone()) / size)
