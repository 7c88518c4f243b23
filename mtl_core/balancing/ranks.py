"""Sums over the processes of a run; the identity where there is one."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtl_core.balancing.losses import TaskLosses


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of `tensor` over all ranks, in place. Every rank has to call it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def mean_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace ``.grad`` by its mean over ranks in one collective per data type.

    A parameter without gradient on this rank counts as zero; one without on any rank ends as None.
    """
    size = world_size()
    if size == 1 or not parameters:
        return
    device = parameters[0].device
    known = torch.tensor(
        [p.grad is not None for p in parameters], dtype=torch.float32, device=device
    )
    reached = sum_over_ranks(known).tolist()
    active = [p for p, n in zip(parameters, reached, strict=True) if n]
    for dtype in dict.fromkeys(p.dtype for p in active):
        group = [p for p in active if p.dtype == dtype]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group]
        )
        sum_over_ranks(flat).div_(size)
        parts = flat.split([p.numel() for p in group])
        for parameter, part in zip(group, parts, strict=True):
            parameter.grad = part.view(parameter.shape)


def share_labels(
    step: TaskLosses, entries: Sequence[str], device: torch.device
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean loss of every entry over all labels of all ranks, and this rank's share in it.

    With the share as factor on the local loss, the plain mean over ranks of any gradient is the
    gradient of the mean over all labels: two processes equal one, also where labels are spread
    unevenly.

    Returns:
        Losses of the entries present on any rank, in the order of `entries`; and the factor by
        entry.
    """
    size = world_size()
    if size == 1:
        return dict(step.values), dict.fromkeys(step.values, 1.0)
    counts = torch.tensor([step.counts.get(e, 0.0) for e in entries], dtype=torch.float64)
    sums = torch.tensor([step.values.get(e, 0.0) for e in entries], dtype=torch.float64) * counts
    total = sum_over_ranks(torch.stack([sums, counts]).to(device)).cpu()
    means: dict[str, float] = {}
    shares: dict[str, float] = {}
    for i, entry in enumerate(entries):
        n = float(total[1, i])
        if n:
            means[entry] = float(total[0, i]) / n
            shares[entry] = size * float(counts[i]) / n
    return means, shares
