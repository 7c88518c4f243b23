"""Per-task gradients of shared parameters: the rows of the Jacobian.

Cost, with forward F, heads H and trunk backward B: rows kept and combined cost F + H + T·B, the
floor for exact methods, because every decoder is walked once and the combination needs no further
backward.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch.autograd.graph import GradientEdge

from mtl_core.balancing.losses import TaskLosses
from mtl_core.nn.parts import ParameterSplit

# Widths at which the products are fastest: kernels for few rows, chunks that stay in the cache.
_BLOCK = 12
_COLUMNS = 1 << 13
_DOUBLES = 1 << 20


def kept_graphs() -> AbstractContextManager[None]:
    """Compile, and walk, graphs whose backward may run several times.

    A compiled backward otherwise reuses the memory of what it saved, and refuses a second walk;
    torch's own error names this setting as the remedy. Forward and backward both have to run
    inside.
    """
    patch: AbstractContextManager[None] = functorch_config.patch(donated_buffer=False)
    return patch


def gramian(rows: Tensor) -> Tensor:
    """Inner products of all rows, whatever the matrix precision of float32 is set to.

    Products of float32 on the CPU are summed in float64 over chunks of columns, which leaves a
    relative error below 1e-6 of the diagonal; everything else is float64 throughout.

    Args:
        rows: (T, n) of any floating type.

    Returns:
        (T, T) float64 on the CPU; not finite where a row is not.
    """
    count = len(rows)
    total = rows.new_zeros(count, count, dtype=torch.float64)
    size = -(-count // max(1, -(-count // _BLOCK)))
    with torch.autocast(rows.device.type, enabled=False):
        for piece in _pieces(rows):
            blocks = piece.split(size, dim=1)
            for i, block in enumerate(blocks):
                for j, other in enumerate(blocks[: i + 1]):
                    place = total[i * size : i * size + block.shape[1]]
                    products = torch.bmm(block, other.transpose(1, 2)).double().sum(0)
                    place[:, j * size : j * size + other.shape[1]] += products
    return (total.tril() + total.tril(-1).t()).cpu()


def _pieces(rows: Tensor) -> Iterator[Tensor]:
    """The columns of (T, n) in chunks (k, T, c) of the type that they are multiplied in."""
    if full_precision(rows):
        # All chunks in one batched product: one by one they cost several times as much.
        whole = rows.shape[1] - rows.shape[1] % _COLUMNS
        if whole:
            yield rows[:, :whole].unflatten(1, (-1, _COLUMNS)).transpose(0, 1)
        yield rows[:, whole:].unsqueeze(0)
    else:
        for chunk in rows.split(max(1, _DOUBLES // max(1, len(rows))), dim=1):
            yield chunk.double().unsqueeze(0)


def full_precision(rows: Tensor) -> bool:
    """Whether products of these rows are those of float32 and not of a shorter type."""
    plain = rows.dtype == torch.float32 and rows.device.type == "cpu"
    return plain and torch.get_float32_matmul_precision() == "highest"


def combine(rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of rows, (n,) in the rows' type; `weights` is (T,)."""
    with torch.autocast(rows.device.type, enabled=False):
        return torch.mv(rows.t(), weights.to(rows))


class RowBuffer:
    """One preallocated (T, n) float32 buffer of task gradients with a view per parameter.

    Args:
        parameters: the shared parameters, n numbers in all.
        entries: T.
        tail: further numbers behind rows and auxiliary gradient that travel between ranks with
            them.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], entries: int, *, tail: int = 0) -> None:
        self.parameters = list(parameters)
        self.sizes = [p.numel() for p in self.parameters]
        self.width = sum(self.sizes)
        self.entries = entries
        aux = self.width if tail else 0
        device = self.parameters[0].device
        self.storage = torch.empty(entries * self.width + aux + tail, device=device)
        self.rows = self.storage[: entries * self.width].view(entries, self.width)
        self.tail = self.storage[entries * self.width + aux :]
        self._aux = self.storage[entries * self.width :][:aux] if tail else None
        self._views = [self._split(row) for row in self.rows]
        self.filled: set[int] = set()
        self.has_aux = False

    def _split(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split(self.sizes)
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    @property
    def aux(self) -> Tensor:
        """(n,) gradient of the auxiliary loss; allocated when first asked for."""
        if self._aux is None:
            self._aux = self.storage.new_empty(self.width)
        return self._aux

    def add(self, entry: int, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients to row `entry`; None stands for zero."""
        _add(self._views[entry], gradients, fresh=entry not in self.filled)
        self.filled.add(entry)

    def add_aux(self, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients of the auxiliary loss, which no method sees."""
        _add(self._split(self.aux), gradients, fresh=not self.has_aux)
        self.has_aux = True

    def complete(self) -> None:
        """Zeros wherever nothing was added in this window."""
        for entry in range(self.entries):
            if entry not in self.filled:
                self.rows[entry].zero_()

    def write(self, update: Tensor) -> None:
        """Make `update` (n,) plus the auxiliary gradient the ``.grad`` of the parameters."""
        if self.has_aux:
            update = update + self.aux
        for parameter, gradient in zip(self.parameters, self._split(update), strict=True):
            parameter.grad = gradient.to(parameter.dtype)

    def reset(self) -> None:
        """Forget the window's gradients."""
        self.filled.clear()
        self.has_aux = False


def _add(views: Sequence[Tensor], gradients: Sequence[Tensor | None], *, fresh: bool) -> None:
    pairs = [(v, g) for v, g in zip(views, gradients, strict=True) if g is not None]
    if pairs:
        places, found = [v for v, _ in pairs], [g for _, g in pairs]
        if fresh:
            torch._foreach_copy_(places, found)
        else:
            torch._foreach_add_(places, [g.to(v.dtype) for v, g in pairs])
    if fresh and len(pairs) < len(views):
        torch._foreach_zero_([v for v, g in zip(views, gradients, strict=True) if g is None])


def accumulate(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to ``.grad``, as a backward pass would."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def decoder_pass(
    step: TaskLosses, factors: Tensor, split: ParameterSplit
) -> tuple[dict[str, list[Tensor | None]], dict[str, list[Tensor | None]]]:
    """Walk every decoder back once, from the losses to the cut.

    Entries of one task (its groups) share a decoder, so they are walked in rounds.

    Args:
        step: losses computed on cut copies of the features.
        factors: (T,) derivative of the trainer's loss by each loss.
        split: whose parameters are whose.

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
    each = dict(zip(step.losses, factors.unbind(), strict=True))
    at_cut: dict[str, list[Tensor | None]] = {}
    own: dict[str, list[Tensor | None]] = {}
    for turn, members in enumerate(rounds):
        borders = [step.cut[step.owner[e]].tensors() for e in members]
        heads = [split.own[step.owner[e]] for e in members]
        wanted: list[Tensor] = [t for part in borders for t in part]
        wanted += [p for part in heads for p in part]
        found = torch.autograd.grad(
            [step.losses[e] for e in members],
            wanted,
            grad_outputs=[each[e] for e in members],
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
    parameters: Sequence[nn.Parameter] | Sequence[GradientEdge],
    *,
    retain_graph: bool,
) -> list[Tensor | None]:
    """Gradient of shared parameters, or at edges, from the border's; None where unreached."""
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
            parameters,
            grad_outputs=[g for _, g in reached],
            retain_graph=retain_graph,
            allow_unused=True,
        )
    )


def stack_or_zeros(gradients: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Gradients (T, ...) along a new first axis; None stands for zeros of the shape of `like`."""
    return torch.stack([torch.zeros_like(like) if g is None else g for g in gradients])


def trunk_rows(
    features: Sequence[Tensor],
    gradients: Sequence[Sequence[Tensor | None]],
    parameters: Sequence[nn.Parameter],
) -> list[list[Tensor | None]]:
    """Gradients of the shared parameters for several gradients at the border, in one walk.

    The walk is vectorised (`torch.func.vmap` of the backward), so every operation of the trunk has
    to allow that.
    """
    outputs = [i for i, f in enumerate(features) if f.requires_grad]
    stacked = [stack_or_zeros([g[i] for g in gradients], features[i]) for i in outputs]
    found = torch.autograd.grad(
        [features[i] for i in outputs],
        list(parameters),
        grad_outputs=stacked,
        is_grads_batched=True,
        allow_unused=True,
    )
    return [[None if g is None else g[t] for g in found] for t in range(len(gradients))]


def add_rows(
    buffer: RowBuffer,
    step: TaskLosses,
    scaled: Tensor,
    split: ParameterSplit,
    index: dict[str, int],
    weight: dict[str, float],
    *,
    batched: bool = False,
    rows_only: bool = False,
) -> None:
    """Add one micro-batch's rows to `buffer` and the decoders' own gradients to ``.grad``.

    Args:
        buffer: rows in the order of `index`.
        step: the micro-batch's losses. With a cut, every decoder is walked once and the trunk once
            a task; without (interacting decoders, task-conditioned encoders) each loss is
            differentiated by itself, and its part of every decoder's gradient is added up.
        scaled: the trainer's multiple of the summed loss.
        split: whose parameters are whose.
        index: row of every entry.
        weight: further factor on every entry's loss (the share of its labels on this rank).
        batched: walk the trunk once for all tasks, vectorised.
        rows_only: leave ``.grad`` and the auxiliary loss alone.
    """
    factors, aux_factor = step.factors(scaled)
    shares = torch.tensor([weight[e] for e in step.losses], dtype=factors.dtype)
    factors = factors * shares.to(factors.device)
    shared, others = split.shared, [] if rows_only else split.all_own()
    entries = list(step.losses)
    if not rows_only and step.aux is not None and step.aux.requires_grad:
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
        at_cut, own = decoder_pass(step, factors, split)
        border = step.features.tensors()
        for entry in [] if rows_only else entries:
            accumulate(split.own[step.owner[entry]], own[entry])
        if batched and any(f.requires_grad for f in border):
            found_rows = trunk_rows(border, [at_cut[e] for e in entries], shared)
            for entry, row in zip(entries, found_rows, strict=True):
                buffer.add(index[entry], row)
            return
        for i, entry in enumerate(entries):
            last = i == len(entries) - 1
            buffer.add(
                index[entry], trunk_gradient(border, at_cut[entry], shared, retain_graph=not last)
            )
        return
    for i, entry in enumerate(entries):
        found = torch.autograd.grad(
            step.losses[entry],
            [*shared, *others],
            grad_outputs=factors[i],
            retain_graph=i < len(entries) - 1,
            allow_unused=True,
        )
        buffer.add(index[entry], found[: len(shared)])
        accumulate(others, found[len(shared) :])
