"""From shared features to one task's prediction."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from mtl_core.nn.features import FeatureInfo, Features
from mtl_core.tasks.base import Task


class Decoded(NamedTuple):
    """A prediction with intermediate predictions that are supervised by the same targets."""

    prediction: Tensor
    intermediate: tuple[Tensor, ...] = ()


class Decoder(nn.Module, ABC):
    """One task's decoder, built from what it gets and what it has to give.

    A subclass adds keyword-only arguments with defaults; everything else comes from `info` and
    `task`.

    Args:
        info: shapes of the features.
        task: the task; the decoder gives `task.out_channels` channels.
    """

    def __init__(self, info: FeatureInfo, task: Task) -> None:
        super().__init__()
        self.info = info
        self.task = task

    @abstractmethod
    def forward(self, features: Features) -> Tensor | Decoded:
        """Raw prediction (B, C, ...), at any resolution; `Task.match` brings it to the target's."""


class LinearDecoder(Decoder):
    """A linear layer on the last map, averaged over positions where it has any.

    Shapes: last map (B, D) or (B, D, H, W) → (B, C).

    Args:
        info: shapes of the features.
        task: a task without maps.
        dropout: probability of dropping a feature, in [0, 1).
    """

    def __init__(self, info: FeatureInfo, task: Task, *, dropout: float = 0.0) -> None:
        super().__init__(info, task)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(info.channels[-1], task.out_channels)

    def forward(self, features: Features) -> Tensor:
        """Logits or values (B, C)."""
        last = features.maps[-1]
        pooled: Tensor = last.flatten(2).mean(2) if last.ndim > 2 else last
        out: Tensor = self.linear(self.dropout(pooled))
        return out
