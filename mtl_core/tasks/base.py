"""What is predicted and scored: the task record that losses, metrics, decoders and export share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jsonargparse import set_parsing_settings
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from mtl_core.errors import ArgumentError, LabelError, MixedProtocolError


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One thing to predict. Frozen, without tensors, rebuilt from plain data in a config.

    The name of a task is the key under which it stands in ``tasks:``; the record does not repeat
    it.

    Shapes: a prediction is (B, C, ...) with C = `out_channels`; a target is (B, ...); *elements*
    are the positions of a target that are scored separately (pixels, candidates), a scalar target
    has one.

    Args:
        weight: static factor on the loss, applied before any balancing (the ``w_t`` of the
            literature).
        groups: names of sub-populations (domains, geometries). Where given, batches carry
            ``group[task]`` (B,) with indices into it, and losses and metrics are kept per pair.
    """

    weight: float = 1.0
    groups: tuple[str, ...] = ()

    dense: ClassVar[bool] = False
    """Whether predictions are maps (B, C, H, W) that follow the input's height and width."""

    def __post_init__(self) -> None:
        """Check the fields. Subclasses extend it and call it."""
        if not self.weight > 0:
            raise ArgumentError("weight", "be positive", self.weight)

    @property
    def evaluation(self) -> str:
        """Name of the evaluation protocol where the literature has several, else empty."""
        return ""

    @property
    @abstractmethod
    def out_channels(self) -> int:
        """Number C of channels that a decoder has to give."""

    @property
    @abstractmethod
    def primary(self) -> str:
        """Key in `metrics` of the metric that enters Δm and model selection."""

    @abstractmethod
    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Loss of every element, in float32.

        Args:
            prediction: (B, C, ...) raw output of the decoder, already matched to the target's size.
            target: (B, ...).
            valid: bool, the shape that `valid` returns; batch statistics (class balance) use only
                these.

        Returns:
            The loss of each element, in the shape of `valid`. Values where `valid` is false are
            ignored and may be anything finite.
        """

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Fresh metrics by name; each is updated with what `update` hands it."""

    def activate(self, prediction: Tensor) -> Tensor:
        """Raw output → what a user reads (probabilities, metres). Default: unchanged."""
        return prediction

    def valid(self, target: Tensor) -> Tensor:
        """Bool mask of the elements of `target` (B, ...) that carry a label. Default: all, (B,)."""
        return torch.ones(target.shape[0], dtype=torch.bool, device=target.device)

    def match(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Bring a prediction to the target's size. Default: unchanged; dense tasks resample."""
        return prediction

    def check(self, target: Tensor) -> None:
        """Raise `LabelError` if `target` (B, ...) holds a value the task does not allow.

        Called by the data module on the collated batch, on the CPU. The default refuses NaN.
        """
        if target.is_floating_point() and bool(target.isnan().any()):
            raise LabelError(type(self).__name__, "hold no NaN", "NaN")

    def update(
        self, metrics: MetricCollection, prediction: Tensor, target: Tensor, valid: Tensor
    ) -> None:
        """Add labelled samples to `metrics`: activated float32 predictions, targets, mask."""
        self.score(metrics, self.activate(prediction.float()), target, valid)

    def score(
        self, metrics: MetricCollection, activated: Tensor, target: Tensor, valid: Tensor
    ) -> None:
        """The same for predictions that are activated already, as exported models give them.

        A task whose metrics take something else overrides this method, and `update` only where
        activation would cost digits.
        """
        metrics.update(activated, target, valid=valid)

    def readout(self) -> dict[str, Any]:
        """How to read activated predictions outside of the suite, as JSON holds it.

        Exported models carry it. ``kind`` says what the numbers are, ``activation`` what `activate`
        has done to them, ``unit`` what they are measured in; ``classes``, ``palette``,
        ``threshold`` and the like where a kind has them. Default: the name of the class, nothing
        known.
        """
        return {"kind": type(self).__name__, "activation": None, "unit": None}

    def higher_is_better(self) -> dict[str, bool]:
        """Direction of every metric, read from the metrics themselves."""
        return {name: bool(metric.higher_is_better) for name, metric in self.metrics().items()}


# A frozen dataclass is a closed type for jsonargparse unless its subclasses are enabled; configs
# name subclasses, also when Lightning rebuilds a module from a checkpoint without our command line.
set_parsing_settings(subclasses_enabled=[Task])


def reduce_loss(element_loss: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the loss over valid elements and their number, one entry per sample.

    A batch mean ``total.sum() / count.sum()`` of the result is the mean over valid elements, the
    convention of the dense literature; a sample without any contributes an exact zero with finite
    gradient.

    Args:
        element_loss: (B, ...) from `Task.element_loss`.
        valid: (B, ...) bool of the same shape.

    Returns:
        ``total`` (B,) float32 and ``count`` (B,) float32.
    """
    kept = torch.where(valid, element_loss, element_loss.new_zeros(()))
    total, count = kept, valid
    if valid.ndim > 1:
        total, count = kept.flatten(1).sum(1), valid.flatten(1).sum(1)
    return total, count.to(total.dtype)


RESERVED_NAMES = frozenset(dir(nn.ModuleDict()))
"""Names that no task may have: decoders are kept in a `torch.nn.ModuleDict`, which has its own
attributes (``type``, ``keys``, ``values``, ``forward``, ``training``, ...)."""


def check_tasks(tasks: Mapping[str, Task]) -> None:
    """Refuse names that cannot key modules and metrics, an empty mapping, and mixed protocols.

    Raises:
        ArgumentError: there is no task, or a name is no identifier or among `RESERVED_NAMES`.
        MixedProtocolError: tasks follow different evaluation protocols.
    """
    if not tasks:
        raise ArgumentError("tasks", "name at least one task", dict(tasks))
    for name in tasks:
        if not name.isidentifier():
            raise ArgumentError(
                "tasks", "be named by letters, digits and underscores, starting with a letter", name
            )
        if name in RESERVED_NAMES:
            raise ArgumentError(
                "tasks",
                "not be named like an attribute of torch.nn.ModuleDict (a column of a table may "
                f"have any name: give its task another one and column={name!r})",
                name,
            )
    protocols = {name: task.evaluation for name, task in tasks.items() if task.evaluation}
    if len(set(protocols.values())) > 1:
        raise MixedProtocolError(protocols)
