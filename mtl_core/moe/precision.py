"""Numbers in full precision, or in that of autocast, wherever a tensor lies."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast on the tensor's device, where the device knows autocast at all (meta does not).

    Args:
        x: on any device.
    """
    # torch.amp.is_autocast_available would say the same, but does not compile in torch 2.11.
    kind = x.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def as_autocast(x: Tensor) -> Tensor:
    """The tensor in the type that autocast computes in, where it is on for the tensor's device.

    For functions with a backward pass of their own, which runs outside of autocast.

    Args:
        x: of any floating type.
    """
    kind = x.device.type
    mixed = kind != "meta" and torch.is_autocast_enabled(kind)
    return x.to(torch.get_autocast_dtype(kind)) if mixed else x
