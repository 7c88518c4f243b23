"""Methods that need independent estimates of the same rows: parts of one batch."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.feature import require_shared
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.passes import aux_pass, summed_pass
from mtl_core.balancing.ranks import share_labels, window_tail
from mtl_core.balancing.rows import RowBuffer, accumulate, add_rows, combine, kept_graphs
from mtl_core.balancing.rowwise import RowBalancer, Update
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.nn.parts import ParameterSplit, SharedNetwork

_CHUNK = 1 << 20


def cross_gramian(first: Tensor, second: Tensor) -> Tensor:
    """Inner products of the rows of two matrices, in float64.

    Args:
        first: (T, n) of any floating type.
        second: (T, n).

    Returns:
        (T, T) float64 on the CPU, not symmetric in general.

    Example:
        >>> cross_gramian(torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[1., 3.],
                [2., 4.]], dtype=torch.float64)
    """
    total = first.new_zeros(len(first), len(second), dtype=torch.float64)
    size = max(1, _CHUNK // max(1, len(first)))
    with torch.autocast(first.device.type, enabled=False):
        for a, b in zip(first.split(size, dim=1), second.split(size, dim=1), strict=True):
            total.addmm_(a.double(), b.double().t())
    return total.cpu()


class PartsBalancer(RowBalancer):
    """Turns the products of two independent estimates of the rows into weights.

    The batch is dealt into parts of samples that take turns, which are evaluated again by
    themselves: one further forward pass and T walks of the trunk in all. Decoders get their
    gradients on the whole batch, unweighted. A part has at least two samples; a batch too small for
    that is dealt into fewer parts, some of which then serve twice. A task without labels in a part
    gets the mean of its rows of the others there. BatchNorm normalises each part by itself.

    Rows of all micro-batches of a window are added up part by part, and averaged over ranks once.
    Every rank deals its own samples, so n processes equal one with other parts.

    Args:
        parts: how many; with two the update is along the mean of both, with three along the third.
        scale: ``sum`` multiplies the weights, which sum to one, by T; ``paper`` does not.
        seed: of the method's random numbers.
    """

    needs = "rows of two batches"

    def __init__(self, *, parts: int, scale: Literal["sum", "paper"], seed: int = 0) -> None:
        super().__init__(seed=seed)
        if parts not in (2, 3):
            raise ArgumentError("parts", "be 2 or 3", parts)
        check_choice("scale", scale, ("sum", "paper"))
        self.parts = parts
        self.scale = scale
        self._seen: list[set[str]] = []

    @abstractmethod
    def weigh(self, cross: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of sum one, as published; state may advance.

        Args:
            cross: (T, T) float64 on the CPU, products of the first part's unscaled rows with the
                second's.
            losses: (T,) float64.
            step: the update.
        """

    def prepare(self, entries: int) -> None:
        """Forget which tasks were in which part."""
        super().prepare(entries)
        self._seen = [set() for _ in range(self.parts)]

    # On plain tensors.

    def direction(self, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
        """Combine T plain gradients as if all parts had given the same ones.

        See `direction_of_parts` for what the method is made for.
        """
        return self.direction_of_parts([jacobian] * self.parts, losses)

    def direction_of_parts(
        self, jacobians: Sequence[Tensor], losses: Tensor | None = None
    ) -> Tensor:
        """Combine plain gradients of independent batches; stateful methods advance.

        Args:
            jacobians: `parts` times (T, n).
            losses: (T,), where the method asks for them; default ones.

        Returns:
            (n,) direction; NaN, and no state moves, where a gradient is not finite.
        """
        if len(jacobians) != self.parts:
            raise ArgumentError("jacobians", f"be {self.parts} of them", len(jacobians))
        stacked = torch.stack([j.detach() for j in jacobians])
        step = self._plain_step(stacked.shape[1])
        if not bool(torch.isfinite(stacked).all()):
            return torch.full_like(stacked[0, 0], torch.nan)
        known = torch.ones(stacked.shape[1]) if losses is None else losses.detach()
        self.report = {}
        found = self.update(stacked.flatten(0, 1), known.double().cpu(), step).direction
        self.index += 1
        return found

    # In a fit.

    def _rows(self, network: SharedNetwork, split: ParameterSplit) -> RowBuffer:
        shared, tail = split.shared, window_tail(split.all_own())
        buffer = self._buffer
        if (
            buffer is None
            or [id(p) for p in shared] != [id(p) for p in buffer.parameters]
            or buffer.rows.device != shared[0].device
            or len(buffer.tail) != tail
        ):
            buffer = self._buffer = RowBuffer(shared, self.parts * len(self.entries), tail=tail)
            names = {id(p): name for name, p in network.named_parameters()}
            self._names = [names[id(p)] for p in shared]
        return buffer

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Decoders on the whole micro-batch, rows on its parts."""
        if step.recompute is None:
            raise BalancerError(
                f"{type(self).__name__} needs a module that can evaluate parts of a batch."
            )
        split = self.parameters_of(module)
        require_shared(self, module, split.shared)
        buffer = self._rows(module.network, split)
        device = split.shared[0].device
        with kept_graphs():
            factors, aux_factor = step.factors(scaled)
            aux_pass(buffer, step, aux_factor, split)
            weight = torch.tensor([shares[e] for e in step.losses], dtype=factors.dtype)
            _, own = summed_pass(step, factors * weight.to(factors.device), split, trunk=False)
            accumulate(split.all_own(), own)
            count = max(1, min(self.parts, step.size // 2))
            for i in range(self.parts):
                part = step.recompute(part=slice(i % count, None, count))
                part_means, part_shares = share_labels(part, self.entries, device)
                self._seen[i].update(part_means)
                if not part.losses:
                    continue
                start = i * len(self.entries)
                index = {entry: start + at for at, entry in enumerate(self.entries)}
                part = replace(part, aux=None, idle=None)
                outer = part.vector.sum() * factors[0]
                add_rows(buffer, part, outer, split, index, part_shares, rows_only=True)

    def pick(self, rows: Tensor, step: Step) -> Tensor:
        """Rows (parts * T, n) of the entries present, complete in every part."""
        by_part = rows.view(self.parts, len(self.entries), -1)
        for entry, at in zip(step.entries, step.present.tolist(), strict=True):
            known = [i for i, seen in enumerate(self._seen) if entry in seen]
            missing = [i for i in range(self.parts) if i not in known]
            if known and missing:
                by_part[missing, at] = by_part[known, at].mean(0)
        self._seen = [set() for _ in range(self.parts)]
        if len(step.present) == len(self.entries):
            return rows
        return by_part[:, step.present.to(rows.device)].flatten(0, 1)

    def finite(self, rows: Tensor) -> Tensor:
        """Which entries (T,) are finite in every part."""
        return super().finite(rows).view(self.parts, -1).all(0)

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> Update:
        """Weights from the first two parts; the update along their mean or along the third."""
        first, second, *rest = rows.view(self.parts, len(losses), -1)
        scale = self.loss_scale()
        weights = self.weigh(cross_gramian(first, second) / scale**2, losses, step)
        if self.scale == "sum":
            weights = weights * len(weights)
        if rest:
            return Update(combine(rest[0], weights), weights)
        return Update(0.5 * (combine(first, weights) + combine(second, weights)), weights)
