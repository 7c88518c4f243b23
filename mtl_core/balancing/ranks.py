"""Sums over the processes of a run; the identity where there is one."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtl_core.balancing.losses import TaskLosses
from mtl_core.balancing.rows import RowBuffer


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of `tensor` over all ranks, in place. Every rank has to call it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def mean_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace ``.grad`` by its mean over ranks, in one collective.

    A parameter without gradient on this rank counts as zero; one without on any rank ends as None.
    Sharded parameters (FSDP2) are left alone: their hooks have averaged them.
    """
    parameters = [p for p in parameters if not hasattr(p, "placements")]
    if world_size() == 1 or not parameters:
        return
    flat = torch.empty(
        sum(p.numel() for p in parameters) + len(parameters), device=parameters[0].device
    )
    pack_gradients(parameters, flat)
    sum_over_ranks(flat)
    unpack_gradients(parameters, flat)


def pack_gradients(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """Write gradients, zeros where there are none, and which there are, into a float32 vector."""
    start = 0
    for parameter in parameters:
        place = flat[start : start + parameter.numel()]
        start += parameter.numel()
        if parameter.grad is None:
            place.zero_()
        else:
            place.copy_(parameter.grad.flatten())
    known = [float(p.grad is not None) for p in parameters]
    flat[start : start + len(known)] = torch.tensor(known)


def unpack_gradients(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """Take mean gradients out of a vector that was summed over ranks; None where no rank had one.

    Args:
        parameters: as they were packed.
        flat: gradients and their numbers.
    """
    size = world_size()
    total = sum(p.numel() for p in parameters)
    known = flat[total : total + len(parameters)].tolist()
    start = 0
    for parameter, ranks in zip(parameters, known, strict=True):
        part = flat[start : start + parameter.numel()]
        start += parameter.numel()
        parameter.grad = (part / size).view(parameter.shape).to(parameter.dtype) if ranks else None


def mean_window(buffer: RowBuffer, own: Sequence[nn.Parameter]) -> None:
    """Average a window's rows, its auxiliary gradient and the decoders' gradients over ranks.

    Everything travels in one collective.

    Args:
        buffer: with a tail as long as `window_tail` says.
        own: parameters of all decoders.
    """
    size = world_size()
    if size == 1:
        return
    if not buffer.has_aux:
        buffer.aux.zero_()
    pack_gradients(own, buffer.tail)
    buffer.tail[-1] = float(buffer.has_aux)
    sum_over_ranks(buffer.storage)
    buffer.rows.div_(size)
    buffer.aux.div_(size)
    buffer.has_aux = bool(buffer.tail[-1])
    unpack_gradients(own, buffer.tail)


def window_tail(own: Sequence[nn.Parameter]) -> int:
    """Numbers that the decoders add to what travels; none on one process."""
    return 0 if world_size() == 1 else sum(p.numel() for p in own) + len(own) + 1


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
