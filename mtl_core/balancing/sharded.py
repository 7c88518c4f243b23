"""Rows of parameters that are sharded over ranks by ``fully_shard`` (FSDP2).

`torch.autograd.grad` passes by the hooks that gather and scatter, so every task is a backward pass
of its own; what the hooks leave in ``.grad``, the local shard of the mean over ranks, is a piece of
the task's row. Products of rows are sums over ranks, the combination is local.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import sum_over_ranks, world_size
from mtl_core.balancing.rows import combine, gramian
from mtl_core.errors import BalancerError
from mtl_core.nn.parts import ParameterSplit


def is_sharded(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether any of these parameters is a distributed tensor."""
    return any(isinstance(p, DTensor) for p in parameters)


class ShardedRows:
    """This rank's columns of the (T, n) rows.

    Args:
        parameters: shared parameters, some of them sharded along their first axis.
        entries: T.

    Raises:
        BalancerError: a parameter is distributed in any other way.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], entries: int) -> None:
        for parameter in parameters:
            if isinstance(parameter, DTensor) and (
                parameter.device_mesh.ndim != 1 or not isinstance(parameter.placements[0], Shard)
            ):
                raise BalancerError(
                    "rows of sharded parameters need fully_shard over one axis of devices, found "
                    f"placements {parameter.placements} on a mesh of {parameter.device_mesh.ndim} "
                    "axes."
                )
        # What every rank holds whole comes last: it counts once in the products.
        self.sharded = [p for p in parameters if isinstance(p, DTensor)]
        self.whole = [p for p in parameters if not isinstance(p, DTensor)]
        self.parameters = [*self.sharded, *self.whole]
        self.sizes = [_local(p).numel() for p in self.parameters]
        self.border = sum(self.sizes[: len(self.sharded)])
        device = _local(self.parameters[0]).device
        self.rows = torch.zeros(entries, sum(self.sizes), device=device)

    def reset(self) -> None:
        """Forget the window's rows."""
        self.rows.zero_()

    def take(self, entry: int) -> None:
        """Move what a backward left in ``.grad`` to row `entry`."""
        for place, parameter in zip(
            self.rows[entry].split(self.sizes), self.parameters, strict=True
        ):
            if parameter.grad is not None:
                place += _local(parameter.grad).flatten()
                parameter.grad = None

    def collect(
        self,
        step: TaskLosses,
        scaled: Tensor,
        split: ParameterSplit,
        entries: Sequence[str],
        present: Sequence[str],
        shares: dict[str, float],
    ) -> Tensor | None:
        """Add one micro-batch's rows; every task's decoder is walked once.

        Args:
            step: its losses.
            scaled: the trainer's multiple of the summed loss.
            split: whose parameters are whose.
            entries: of the run, in the order of the rows.
            present: entries with labels on any rank.
            shares: this rank's share of the labels by entry.

        Returns:
            This rank's columns of the auxiliary loss's gradient, or None without such a loss.

        Raises:
            BalancerError: a task has labels on some ranks only, where the others would wait for it.
        """
        known = torch.tensor([float(e in step.losses) for e in present], device=self.rows.device)
        missing = sum_over_ranks(known.clone()) < world_size()
        if bool(missing.any()):
            names = [e for e, m in zip(present, missing.tolist(), strict=True) if m]
            raise BalancerError(
                "with sharded parameters every task needs labels on every rank or on none, but "
                f"{', '.join(names)} had none on some rank. Use larger batches, or strategy: ddp."
            )
        factors, aux_factor = step.factors(scaled)
        aux = None
        if step.aux is not None and step.aux.requires_grad:
            torch.autograd.backward(step.aux, aux_factor, retain_graph=True)
            kept = self.rows[0].clone()
            self.rows[0] = 0
            self.take(0)
            aux = self.rows[0].clone()
            self.rows[0] = kept
        border = None if step.features is None or not step.cut else step.features.tensors()
        losses = list(step.losses.items())
        for i, (entry, loss) in enumerate(losses):
            last = i == len(losses) - 1
            factor = factors[i] * shares[entry]
            if border is None:
                torch.autograd.backward(loss, factor, retain_graph=not last)
            else:
                sides = step.cut[step.owner[entry]].tensors()
                torch.autograd.backward(loss, factor, retain_graph=_more(losses, step, i))
                reached = [
                    (f, s.grad)
                    for f, s in zip(border, sides, strict=True)
                    if s.grad is not None and f.requires_grad
                ]
                torch.autograd.backward(
                    [f for f, _ in reached], [g for _, g in reached], retain_graph=not last
                )
                for side in sides:
                    side.grad = None
            self.take(entries.index(entry))
        return aux

    def gramian(self, step: Step) -> Tensor:
        """Gramian (T, T) float64 of the entries in `step`, equal on all ranks."""
        size = world_size()
        if self.whole and size > 1:
            part = self.rows[:, self.border :].contiguous()
            self.rows[:, self.border :] = sum_over_ranks(part) / size
        rows = self.rows[step.present.to(self.rows.device)]
        total = gramian(rows[:, : self.border]) + gramian(rows[:, self.border :]) / size
        return sum_over_ranks(total.to(rows.device)).cpu()

    def write(self, weights: Tensor, step: Step, aux: Tensor | None) -> None:
        """Make the weighted sum of the rows, and the auxiliary gradient, the ``.grad``."""
        direction = combine(self.rows[step.present.to(self.rows.device)], weights)
        if aux is not None:
            direction = direction + aux
        for parameter, part in zip(self.parameters, direction.split(self.sizes), strict=True):
            local = _local(parameter)
            gradient = part.view(local.shape).to(local.dtype)
            if isinstance(parameter, DTensor):
                gradient = DTensor.from_local(
                    gradient,
                    parameter.device_mesh,
                    parameter.placements,
                    run_check=False,
                    shape=parameter.shape,
                    stride=parameter.stride(),
                )
            parameter.grad = gradient


def _more(losses: Sequence[tuple[str, Tensor]], step: TaskLosses, turn: int) -> bool:
    """Whether a later entry (another group) goes through the same decoder."""
    owner = step.owner[losses[turn][0]]
    return any(step.owner[e] == owner for e, _ in losses[turn + 1 :])


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
