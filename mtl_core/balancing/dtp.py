"""Dynamic task prioritisation."""

from collections.abc import Mapping
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.by_name import ByName, check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError

_LEAST = 1e-3


def dtp_weights(scores: Tensor, gamma: float) -> Tensor:
    r"""Focal weights (T,): :math:`-(1 - \kappa)^\gamma \log \kappa`.

    Args:
        scores: :math:`\kappa`, (T,) in (0, 1].
        gamma: focusing, not negative.

    Example:
        >>> import torch
        >>> dtp_weights(torch.tensor([0.5, 1.0]), 1.0)
        tensor([0.3466, 0.0000])
    """
    return (1 - scores) ** gamma * (1 / scores).log()


class DTP(LossBalancer):
    r"""Gives hard tasks priority, as measured by a metric of each on the validation data.

    Guo et al., "Dynamic Task Prioritization for Multitask Learning", ECCV 2018:
    :math:`w_t = -(1 - \kappa_t)^\gamma \log \kappa_t` with a running average :math:`\kappa_t` of an
    accuracy-like metric. The metrics are what the module logs in validation
    (``val/TASK/METRIC``, ``val/TASK/GROUP/METRIC`` for entries that are groups), so weights change
    once a validation and are one before the first. A task without labels in it keeps its average.

    Errors have no such range. With a reference r, which is not in the paper, an error e counts as
    :math:`\kappa = r / (r + e)`: one without error, one half at the reference.

    Unverified beyond the formula: that the paper measures on validation rather than on training
    batches, its factor of the running average, and its hierarchy of tasks, which is not offered.
    Fragile: solved tasks lose all weight, and metrics of different tasks are compared as if they
    meant the same. Scores below 0.001 (R² can be negative) count as 0.001.
    LibMTL and TorchJD do not have it.

    Args:
        metrics: metric by task; its primary one where not named. It has to be bounded by 1 and
            better when higher, or to have a reference.
        references: error that counts as half solved, by task, positive; needed for metrics that are
            better when lower.
        gamma: focusing, not negative.
        alpha: share in (0, 1] of the newest metric in the average; the first is taken as it is.
        scale: ``sum`` multiplies the weights so that they sum to T, equal ones where all tasks are
            solved; ``paper`` leaves them.
        seed: unused; every balancer has one.

    Example:
        >>> import torch
        >>> balancer = DTP()
        >>> balancer.start(("a", "b"))
        >>> balancer.observe({"a": 0.5, "b": 1.0})
        >>> balancer.weigh(torch.ones(2).double(), balancer.step(("a", "b"))).tolist()
        [2.0, 0.0]
    """

    source = "Guo et al., ECCV 2018"

    def __init__(
        self,
        *,
        metrics: Mapping[str, str] | None = None,
        references: Mapping[str, float] | None = None,
        gamma: float = 1.0,
        alpha: float = 0.5,
        scale: Literal["sum", "paper"] = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        check_choice("scale", scale, ("sum", "paper"))
        if not 0 <= gamma < float("inf"):
            raise ArgumentError("gamma", "be finite and not negative", gamma)
        if not 0 < alpha <= 1:
            raise ArgumentError("alpha", "lie in (0, 1]", alpha)
        self.metrics = ByName("metrics", metrics, "")
        self.references = ByName("references", references, 0.0)
        for name, value in self.references.given.items():
            if not 0 < value < float("inf"):
                raise ArgumentError(f"references[{name!r}]", "be positive and finite", value)
        self.gamma = gamma
        self.alpha = alpha
        self.scale = scale
        self.scores = torch.zeros(0, dtype=torch.float64)
        self._observed = -1
        self._keys: dict[str, str] = {}

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Find every entry's metric; one that is better when lower needs a reference."""
        checked = super().check(trainer, module)
        self.metrics.check(checked.entries)
        self.references.check(checked.entries)
        self._keys = {}
        for entry in checked.entries:
            name = entry.partition("/")[0]
            task = checked.network.tasks[name]
            better = task.higher_is_better()
            key = self.metrics.value(entry) or task.primary
            if key not in better:
                raise UnknownNameError(f"metrics[{name!r}]", key, better)
            reference = self.references.value(entry)
            if better[key] and reference:
                raise ArgumentError(
                    f"references[{name!r}]", f"be absent for {key}, better when higher", reference
                )
            if not better[key] and not reference:
                usable = ", ".join(k for k, higher in better.items() if higher) or "none"
                raise ArgumentError(
                    f"metrics[{name!r}]",
                    f"be better when higher (here: {usable}) or have a reference",
                    key,
                )
            self._keys[entry] = f"val/{entry}/{key}"
        return checked

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse runs without validation."""
        super().on_train_start(trainer, pl_module)
        if not trainer.enable_validation:
            raise BalancerError(
                "DTP reads metrics of the validation, which this run does not have."
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the metrics just logged."""
        if self._trainer is None or trainer.sanity_checking or self.index == self._observed:
            return  # a run resumed from its end validates once more
        self._observed = self.index
        logged = trainer.callback_metrics
        self.observe({e: float(logged[key]) for e, key in self._keys.items() if key in logged})

    def observe(self, scores: Mapping[str, float]) -> None:
        """Take new metrics in; in a training loop of your own, call it after each validation.

        Args:
            scores: value by entry: at most 1, or an error where the task has a reference; entries
                that are missing or NaN keep theirs.

        Raises:
            UnknownNameError: a score of no entry.
            BalancerError: a score above 1, or a negative error.
        """
        for entry, score in scores.items():
            if entry not in self.entries:
                raise UnknownNameError("scores", entry, self.entries)
            reference = self.references.value(entry)
            if reference and score < 0:
                raise BalancerError(f"errors are not negative, but that of {entry} is {score:.4g}.")
            if reference:
                score = reference / (reference + score)
            if score > 1 + 1e-6:
                raise BalancerError(f"DTP needs metrics of at most 1, but {entry} has {score:.4g}.")
            if score != score:
                continue
            at, new = self.entries.index(entry), min(max(score, _LEAST), 1.0)
            former = float(self.scores[at])
            self.scores[at] = (
                new if former != former else self.alpha * new + (1 - self.alpha) * former
            )

    def reset(self, entries: int) -> None:
        """No metrics yet."""
        self.scores = torch.full((entries,), torch.nan, dtype=torch.float64)
        self._observed = -1

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Focal weights (T,); one for tasks never measured."""
        scores = self.scores[step.present]
        known = ~scores.isnan()
        weights = torch.ones_like(losses)
        if not bool(known.any()):
            return weights
        found = dtp_weights(scores[known], self.gamma)
        if self.scale == "sum":
            total = float(found.sum())
            found = found * (len(found) / total) if total > 0 else torch.ones_like(found)
        weights[known] = found
        return weights

    def method_state(self) -> dict[str, Any]:
        """Averages by entry."""
        return {"scores": self.scores, "observed": self._observed}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.scores = state["scores"].clone()
        self._observed = state["observed"]
