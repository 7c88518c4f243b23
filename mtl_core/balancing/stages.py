"""What surrounds the weighting rule of a Gramian method: stages that combine freely.

Most published variants are one rule between other stages (a log of the losses, rows of unit
length, weights per layer, an average over steps). The stages are options of every method here.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.scalars import LearnedScalars
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError

_CHOICES = {
    "gram": ("exact", "batched", "ghost", "auto", "last_layer", "feature", "subsample"),
    "transform": ("none", "log", "exp_scale"),
    "row_scale": ("none", "l2", "loss", "loss+", "ema_l2"),
    "group": ("whole", "layer", "matrix"),
    "scale": ("sum", "paper"),
    "norm": ("free", "sum", "max"),
}


@dataclass(frozen=True, kw_only=True)
class Stages:
    r"""How a Gramian method is fed and what becomes of its weights.

    Args:
        gram: where the Gramian comes from. ``exact``: one walk of the trunk a task. ``batched``:
            the same in one vectorised walk. ``ghost``: exact, from activations and signals of
            linear layers, cheaper for small batches through wide layers. ``auto``: ``ghost`` where
            the first batch says that it is cheaper, else ``exact``. Approximations, with one
            weighted walk of the trunk: ``last_layer`` (rows of the last shared layer), ``feature``
            (gradients of the features), ``subsample`` (exact rows of a part of the batch).
        layer: name of the module whose parameters ``last_layer`` takes; empty takes the last
            shared module with a matrix of weights.
        parts: ``subsample`` takes one part in so many.
        transform: of the losses. ``log`` minimises :math:`\log \ell_t`, rows are divided by the
            loss (positive losses only); ``exp_scale`` learns one scale a task
            (:math:`e^{s_t} \ell_t - s_t`, IMTL-L).
        row_scale: rows are divided by their length (``l2``), the loss (``loss``), both
            (``loss+``), or an average of their length over steps (``ema_l2``) before the rule sees
            them.
        group: one set of weights for all shared parameters (``whole``), one a module (``layer``) or
            one a parameter tensor (``matrix``).
        refresh: the rule acts every so many updates; in between its last weights are applied in one
            walk of the trunk.
        ema: share in [0, 1) of the former weights in the new ones (CR-MOGM, Zhou et al. 2022).
        clamp: least and largest weight, or None.
        scale: ``sum`` multiplies the weights so that the update agrees with the plain sum of the
            losses where all rows agree; ``paper`` leaves them as published. No effect on methods
            whose update is no multiple of equal rows (Nash-MTL, FairGrad).
        norm: ``sum`` gives the update the length of the plain sum of the rows; ``max`` limits it to
            `max_norm`; ``free`` does neither.
        max_norm: positive.
        weight_decoders: multiply every decoder's gradient by its task's weight too.
    """

    gram: Literal["exact", "batched", "ghost", "auto", "last_layer", "feature", "subsample"] = (
        "exact"
    )
    layer: str = ""
    parts: int = 4
    transform: Literal["none", "log", "exp_scale"] = "none"
    row_scale: Literal["none", "l2", "loss", "loss+", "ema_l2"] = "none"
    group: Literal["whole", "layer", "matrix"] = "whole"
    refresh: int = 1
    ema: float = 0.0
    clamp: tuple[float, float] | None = None
    scale: Literal["sum", "paper"] = "sum"
    norm: Literal["free", "sum", "max"] = "free"
    max_norm: float = 1.0
    weight_decoders: bool = False

    def __post_init__(self) -> None:
        """Check every option and what cannot go together."""
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(f"stages.{name}", getattr(self, name), known)
        for name in ("refresh", "parts"):
            if not getattr(self, name) >= 1:
                raise ArgumentError(f"stages.{name}", "be at least 1", getattr(self, name))
        if not 0 <= self.ema < 1:
            raise ArgumentError("stages.ema", "lie in [0, 1)", self.ema)
        if not self.max_norm > 0:
            raise ArgumentError("stages.max_norm", "be positive", self.max_norm)
        if self.clamp is not None and not self.clamp[0] <= self.clamp[1]:
            raise ArgumentError("stages.clamp", "be a pair (least, largest)", self.clamp)
        if self.layer and self.gram != "last_layer":
            raise ArgumentError("stages.layer", "go with gram: last_layer", self.layer)
        if self.group != "whole":
            if self.gram not in ("exact", "batched"):
                raise ArgumentError(
                    "stages.gram", f"be exact or batched with group: {self.group}", self.gram
                )
            if self.weight_decoders:
                raise ArgumentError(
                    "stages.weight_decoders", "be false with weights by group", self.group
                )
            if self.refresh > 1:
                raise ArgumentError("stages.refresh", "be 1 with weights by group", self.refresh)

    @property
    def cheap(self) -> bool:
        """Whether the trunk is walked once, with weights from a surrogate of the Gramian."""
        return self.gram in ("last_layer", "feature", "subsample")


class Rule(Protocol):
    """The part of a method that the stages surround."""

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of the rows."""

    def gain(self, tasks: int) -> float | None:
        """Sum of the published weights for equal rows; None if that depends on their length."""


class Solved(NamedTuple):
    """What the stages make of a Gramian.

    Args:
        weights: (T,) float64 of the rows as they are.
        factor: of the trunk's update, below 1 where a limit binds (``norm: max``).
        decoders: (T,) factors of the decoders' gradients; None leaves them as they are.
    """

    weights: Tensor
    factor: float = 1.0
    decoders: Tensor | None = None


class Pipeline:
    """The stages at work, with their state by entry.

    Args:
        stages: options.
        entries: number of entries of the run.
    """

    def __init__(self, stages: Stages, entries: int) -> None:
        self.stages = stages
        self.smoothed = torch.full((entries,), torch.nan, dtype=torch.float64)
        self.lengths = torch.full((entries,), torch.nan, dtype=torch.float64)
        self.log_scales = LearnedScalars(entries, lr=0.025)

    def solve(self, rule: Rule, gramian: Tensor, losses: Tensor, step: Step) -> Solved:
        """Weights of the rows, all stages included.

        Args:
            rule: of the method.
            gramian: (T, T) float64 on the CPU, finite, of a positive diagonal.
            losses: (T,) float64.
            step: the update; its entries are those of the Gramian.
        """
        slopes = self._slopes(losses, step)
        scales = self._row_scales(gramian, losses, step, slopes)
        inner = gramian * torch.outer(scales, scales)
        weights = rule.weigh(inner, self._transformed(losses), step)
        gain = rule.gain(len(weights))
        if self.stages.scale == "sum" and gain is not None:
            weights = weights * (len(weights) / gain)
        weights = self._filtered(weights, step.present) * scales
        if self.stages.transform == "exp_scale":
            at = step.present
            self.log_scales.step(torch.exp(self.log_scales.values[at]) * losses - 1, at)
        weights, factor = self._limited(weights, gramian)
        decoders = weights if self.stages.weight_decoders else slopes
        return Solved(weights, factor, decoders)

    def _transformed(self, losses: Tensor) -> Tensor:
        return losses.log() if self.stages.transform == "log" else losses

    def _slopes(self, losses: Tensor, step: Step) -> Tensor | None:
        """Derivatives (T,) of the transformed losses; None without a transform."""
        match self.stages.transform:
            case "log":
                require_positive(losses, step, "logarithms of losses")
                return 1 / losses
            case "exp_scale":
                return torch.exp(self.log_scales.values[step.present])
        return None

    def _row_scales(
        self, gramian: Tensor, losses: Tensor, step: Step, slopes: Tensor | None
    ) -> Tensor:
        stages = self.stages
        scales = torch.ones_like(losses) if slopes is None else slopes
        if stages.row_scale in ("loss", "loss+"):
            require_positive(losses, step, "divisions by losses")
        lengths = gramian.diagonal().sqrt() * scales
        if stages.row_scale == "none":
            return scales
        if stages.row_scale == "ema_l2":
            former = self.lengths[step.present]
            lengths = torch.where(former.isnan(), lengths, 0.9 * former + 0.1 * lengths)
            self.lengths[step.present] = lengths
        sizes = {"l2": lengths, "ema_l2": lengths, "loss": losses, "loss+": losses * lengths}
        size = sizes[stages.row_scale]
        return scales / size * (size.mean() if stages.scale == "sum" else 1)

    def _filtered(self, weights: Tensor, present: Tensor) -> Tensor:
        if self.stages.ema:
            former = self.smoothed[present]
            mixed = self.stages.ema * former + (1 - self.stages.ema) * weights
            weights = torch.where(former.isnan(), weights, mixed)
            self.smoothed[present] = weights
        if self.stages.clamp is not None:
            weights = weights.clamp(*self.stages.clamp)
        return weights

    def _limited(self, weights: Tensor, gramian: Tensor) -> tuple[Tensor, float]:
        if self.stages.norm == "free":
            return weights, 1.0
        square = float(weights @ gramian @ weights)
        size = float(weights.square() @ gramian.diagonal())
        if square <= 1e-6 * size:  # stationary: what is left is rounding, not to be blown up
            return weights, 1.0
        if self.stages.norm == "sum":
            return weights * float((gramian.sum() / square).clamp_min(0).sqrt()), 1.0
        return weights, min(1.0, self.stages.max_norm / square**0.5)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "smoothed": self.smoothed,
            "lengths": self.lengths,
            "log_scales": self.log_scales.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.smoothed = state["smoothed"].clone()
        self.lengths = state["lengths"].clone()
        self.log_scales.load(state["log_scales"])


def require_positive(losses: Tensor, step: Step, what: str) -> None:
    """Refuse losses that are not positive.

    Args:
        losses: (T,) finite.
        step: whose entries they are.
        what: needs them to be positive.
    """
    for entry, loss in zip(step.entries, losses.tolist(), strict=True):
        if not loss > 0:
            raise BalancerError(f"{what} need positive losses, but that of {entry} is {loss:.4g}.")
