"""Weights that are moved for a look, and put back."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn


class MovedWeights:
    """A context in which parameters may be moved; they leave it as they came, bit for bit.

    Values are copied back (taking the same number off again would round), also after an error.

    Args:
        parameters: which ones.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self._kept = [p.detach().clone() for p in self.parameters]

    def __enter__(self) -> Self:
        """Nothing moves yet."""
        return self

    def restore(self) -> None:
        """Copy the values back."""
        if self.parameters:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self._kept)
        # Casts of moved weights must not serve the next pass where autocast encloses all of them.
        torch.clear_autocast_cache()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Likewise."""
        self.restore()
