"""A forward pass repeated: the same random numbers, and buffers left as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RandomState:
    """State of torch's generators, of the CPU and of one device.

    Args:
        device: whose generator is kept beside the CPU's.
        cpu: state of the CPU's generator.
        accelerator: state of the device's generator, None on the CPU.
    """

    device: torch.device
    cpu: Tensor
    accelerator: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> Self:
        """The state at this moment."""
        own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, torch.get_rng_state(), own)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw from this state inside, and go on after as if nothing had been drawn."""
        devices = [self.device] if self.accelerator is not None else []
        with torch.random.fork_rng(devices):
            torch.set_rng_state(self.cpu)
            if self.accelerator is not None:
                torch.cuda.set_rng_state(self.accelerator, self.device)
            yield


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Work on copies of all buffers (BatchNorm statistics and their counters) inside.

    The buffers themselves are not written to, so that a graph made before can still be walked.
    """
    before = [(m, dict(m._buffers)) for m in module.modules() if m._buffers]
    try:
        for owner, buffers in before:
            for name, buffer in buffers.items():
                owner._buffers[name] = None if buffer is None else buffer.detach().clone()
        yield
    finally:
        for owner, buffers in before:
            owner._buffers.update(buffers)
