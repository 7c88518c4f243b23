"""Per-task gradients of shared parameters: the rows of the Jacobian.

Cost, with forward F, heads H and trunk backward B: rows kept and combined cost F + H + T·B, the
floor for exact methods, because every decoder is walked once and the combination needs no further
backward.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config

from mtl_core.balancing.losses import TaskLosses
from mtl_core.nn.network import MultiTaskNetwork

_CHUNK = 1 << 18


def kept_graphs() -> AbstractContextManager[None]:
    """Compile, and walk, graphs whose backward may run several times.

    A compiled backward otherwise reuses the memory of what it saved, and refuses a second walk;
    torch's own error names this setting as the remedy. Forward and backward both have to run
    inside.
    """
    patch: AbstractContextManager[None] = functorch_config.patch(donated_buffer=False)
    return patch


def gramian(rows: Tensor) -> Tensor:
    """Inner products of all rows, in float64 whatever the matrix precision of float32 is set to.

    Args:
        rows: (T, n) of any floating type.

    Returns:
        (T, T) float64 on the CPU; not finite where a row is not.
    """
    total = rows.new_zeros(rows.shape[0], rows.shape[0], dtype=torch.float64)
    with torch.autocast(rows.device.type, enabled=False):
        for chunk in rows.split(_CHUNK, dim=1):
            wide = chunk.double()
            total.addmm_(wide, wide.t())
    return total.cpu()


def combine(rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of rows, (n,) in the rows' type; `weights` is (T,)."""
    with torch.autocast(rows.device.type, enabled=False):
        return torch.mv(rows.t(), weights.to(rows))


class RowBuffer:
    """One preallocated (T, n) float32 buffer of task gradients with a view per parameter.

    Args:
        parameters: the shared parameters, n numbers in all.
        entries: T.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], entries: int) -> None:
        self.parameters = list(parameters)
        self.sizes = [p.numel() for p in self.parameters]
        device = self.parameters[0].device
        self.rows = torch.zeros(entries, sum(self.sizes), device=device)
        self.aux = torch.zeros(sum(self.sizes), device=device)
        self._views = [self._split(row) for row in self.rows]
        self._aux_views = self._split(self.aux)
        self.filled: set[int] = set()
        self.has_aux = False

    def _split(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split(self.sizes)
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def add(self, entry: int, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients to row `entry`; None stands for zero."""
        _add(self._views[entry], gradients)
        self.filled.add(entry)

    def add_aux(self, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients of the auxiliary loss, which no method sees."""
        _add(self._aux_views, gradients)
        self.has_aux = True

    def write(self, update: Tensor) -> None:
        """Make `update` (n,) plus the auxiliary gradient the ``.grad`` of the parameters."""
        if self.has_aux:
            update = update + self.aux
        for parameter, gradient in zip(self.parameters, self._split(update), strict=True):
            parameter.grad = gradient.to(parameter.dtype)

    def reset(self) -> None:
        """Forget the window's gradients."""
        self.rows.zero_()
        self.aux.zero_()
        self.filled.clear()
        self.has_aux = False


def _add(views: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    pairs = [(v, g) for v, g in zip(views, gradients, strict=True) if g is not None]
    if pairs:
        torch._foreach_add_([v for v, _ in pairs], [g.to(v.dtype) for v, g in pairs])


def accumulate(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to ``.grad``, as a backward pass would."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def decoder_pass(
    step: TaskLosses, factors: Tensor, network: MultiTaskNetwork
) -> tuple[dict[str, list[Tensor | None]], dict[str, list[Tensor | None]]]:
    """Walk every decoder back once, from the losses to the cut.

    Entries of one task (its groups) share a decoder, so they are walked in rounds.

    Args:
        step: losses computed on cut copies of the features.
        factors: (T,) derivative of the trainer's loss by each loss.
        network: whose decoders these are.

    Returns:
        Gradients at the task's copy of the features by entry, and of the task's own parameters by
        entry.
    """
    rounds: list[list[str]] = []
    seen: dict[str, int] = {}
    for entry in step.losses:
        turn = seen.get(step.owner[entry], 0)
        seen[step.owner[entry]] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(entry)
    position = {entry: i for i, entry in enumerate(step.losses)}
    at_cut: dict[str, list[Tensor | None]] = {}
    own: dict[str, list[Tensor | None]] = {}
    for turn, members in enumerate(rounds):
        borders = [step.cut[step.owner[e]].tensors() for e in members]
        heads = [network.task_parameters(step.owner[e]) for e in members]
        wanted: list[Tensor] = [t for part in borders for t in part]
        wanted += [p for part in heads for p in part]
        found = torch.autograd.grad(
            [step.losses[e] for e in members],
            wanted,
            grad_outputs=[factors[position[e]] for e in members],
            retain_graph=turn < len(rounds) - 1,
            allow_unused=True,
        )
        sizes = [len(part) for part in borders] + [len(part) for part in heads]
        parts = _split_list(found, sizes)
        for i, entry in enumerate(members):
            at_cut[entry] = parts[i]
            own[entry] = parts[len(members) + i]
    return at_cut, own


def _split_list(items: Sequence[Tensor | None], sizes: Sequence[int]) -> list[list[Tensor | None]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(items[start : start + size]))
        start += size
    return parts


def trunk_gradient(
    features: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    parameters: Sequence[nn.Parameter],
    *,
    retain_graph: bool,
) -> list[Tensor | None]:
    """Gradient of the shared parameters from gradients at the border; None where unreached."""
    reached = [
        (f, g)
        for f, g in zip(features, gradients, strict=True)
        if g is not None and f.requires_grad
    ]
    if not reached:
        return [None] * len(parameters)
    return list(
        torch.autograd.grad(
            [f for f, _ in reached],
            list(parameters),
            grad_outputs=[g for _, g in reached],
            retain_graph=retain_graph,
            allow_unused=True,
        )
    )


def add_rows(
    buffer: RowBuffer,
    step: TaskLosses,
    scaled: Tensor,
    network: MultiTaskNetwork,
    index: dict[str, int],
    weight: dict[str, float],
) -> None:
    """Add one micro-batch's rows to `buffer` and the decoders' own gradients to ``.grad``.

    Args:
        buffer: rows in the order of `index`.
        step: the micro-batch's losses. With a cut, every decoder is walked once and the trunk once
            a task; without (interacting decoders, task-conditioned encoders) each loss is
            differentiated by itself.
        scaled: the trainer's multiple of the summed loss.
        network: whose parameters these are.
        index: row of every entry.
        weight: further factor on every entry's loss (the share of its labels on this rank).
    """
    factors, aux_factor = step.factors(scaled)
    shares = torch.tensor([weight[e] for e in step.losses], dtype=factors.dtype)
    factors = factors * shares.to(factors.device)
    shared = buffer.parameters
    entries = list(step.losses)
    if step.aux is not None and step.aux.requires_grad:
        others = [p for t in network.tasks for p in network.task_parameters(t)]
        found = torch.autograd.grad(
            step.aux,
            [*shared, *others],
            grad_outputs=aux_factor,
            retain_graph=bool(entries),
            allow_unused=True,
        )
        buffer.add_aux(found[: len(shared)])
        accumulate(others, found[len(shared) :])
    if step.cut and step.features is not None:
        at_cut, own = decoder_pass(step, factors, network)
        border = step.features.tensors()
        for i, entry in enumerate(entries):
            accumulate(network.task_parameters(step.owner[entry]), own[entry])
            last = i == len(entries) - 1
            buffer.add(
                index[entry], trunk_gradient(border, at_cut[entry], shared, retain_graph=not last)
            )
        return
    for i, entry in enumerate(entries):
        others = network.task_parameters(step.owner[entry])
        found = torch.autograd.grad(
            step.losses[entry],
            [*shared, *others],
            grad_outputs=factors[i],
            retain_graph=i < len(entries) - 1,
            allow_unused=True,
        )
        buffer.add(index[entry], found[: len(shared)])
        accumulate(others, found[len(shared) :])
