"""Fixed weights, found in a warm-up."""

import math
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.border import Border, Merged, merge_at_border
from mtl_core.balancing.feature import require_border, require_shared
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import mean_gradients
from mtl_core.balancing.rows import combine
from mtl_core.balancing.stages import Stages
from mtl_core.balancing.surrogates import surrogate_gramian
from mtl_core.errors import ArgumentError, BalancerError


def inverse_norm_weights(norms: Tensor) -> Tensor:
    """Weights (T,) in inverse proportion to lengths (T,), of mean one; one for a length of zero.

    Args:
        norms: float64, not negative; tasks of length zero are left out of the mean.
    """
    alive = norms > 0
    weights = torch.ones_like(norms)
    if bool(alive.any()):
        inverse = norms[alive].min() / norms[alive]
        weights[alive] = inverse * (len(inverse) / inverse.sum())
    return weights


class Calibrated(LossBalancer):
    r"""Fixed weights in inverse proportion to gradients' lengths, measured in a warm-up.

    During the first updates the weights are :math:`w_t \propto 1 / \lVert g_t \rVert` of the batch,
    on the last shared layer; the means of :math:`-\log \lVert g_t \rVert` over these updates give
    weights that stay fixed from then on, at the cost of equal weights:

    .. math:: w_t \propto \exp\bigl(-\operatorname{mean}_k \log \lVert g_t^{(k)} \rVert\bigr),
        \qquad \sum_t w_t = T .

    They are printed at the end of the warm-up, saved, and logged, to be reused with `Static`.
    The idea is that of AutoScale (Yang et al. 2025, arXiv 2508.13979): fixed weights that perform
    well go with equal gradient lengths, a low condition number and balanced losses. AutoScale
    itself searches for weights window by window with an optimiser that is not published in detail,
    and is not rebuilt here. A second study (arXiv 2509.23915) found that scaling losses by their
    gradient norms comes close to a grid search.

    Weights reach the decoders, as those of any fixed weighting. Of degree one in the scale of the
    gradients; rescaling a loss changes nothing after the warm-up. Fragile where lengths early in
    training say little about later ones. A task without a gradient in the warm-up keeps weight
    one. Needs a network whose decoders meet only in the features. Under accumulation the warm-up
    weighs every micro-batch by itself.

    Args:
        steps: updates of the warm-up; 0 takes the larger of one epoch and `share` of the training.
        share: part of the training, in (0, 1).
        layer: name of the module that lengths are measured on; empty takes the last shared one.
        seed: unused; every balancer has one.
    """

    source = "after Yang et al., arXiv 2508.13979"
    needs = "norms"
    walks = "1"
    by_hand: ClassVar[bool] = True

    def __init__(
        self, *, steps: int = 0, share: float = 0.05, layer: str = "", seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        if steps < 0:
            raise ArgumentError("steps", "not be negative", steps)
        if not 0 < share < 1:
            raise ArgumentError("share", "lie in (0, 1)", share)
        self.steps = steps
        self.share = share
        self.stages = Stages(gram="last_layer", layer=layer)
        self.reset(0)

    def reset(self, entries: int) -> None:
        """Nothing measured."""
        self._length = self.steps
        self._sums = torch.zeros(2, entries, dtype=torch.float64)
        self._fresh = torch.zeros(2, entries, dtype=torch.float64)
        self._latest: dict[str, float] = {}

    @property
    def calibrating(self) -> bool:
        """Whether the warm-up goes on."""
        return self._length == 0 or self.index < self._length

    @property
    def wants_cut(self) -> bool:  # type: ignore[override]  # no longer after the warm-up
        """Lengths are measured behind a cut."""
        return self.calibrating

    @property
    def fixed(self) -> dict[str, float]:
        """The weights by entry, as far as they are known."""
        weights = torch.ones(len(self.entries), dtype=torch.float64)
        known = self._sums[1] > 0
        if bool(known.any()):
            logs = -self._sums[0, known] / self._sums[1, known]
            weights[known] = torch.softmax(logs, 0) * len(logs)
        return dict(zip(self.entries, weights.tolist(), strict=True))

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse networks without a border too."""
        checked = super().check(trainer, module)
        require_border(self, checked)
        return checked

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find out how long the warm-up is."""
        super().on_train_start(trainer, pl_module)
        if self._length:
            return
        epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
        if not math.isfinite(epoch):
            raise BalancerError(
                "Calibrated cannot tell the length of an epoch from this data: give steps a number."
            )
        total = float(trainer.estimated_stepping_batches)
        part = self.share * total if math.isfinite(total) else 0.0
        self._length = max(1, math.ceil(epoch), math.ceil(part))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Cut the features in the warm-up only."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        pl_module.wants_cut = self.wants_cut  # type: ignore[assignment]

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """The fixed weights (T,); ones before there are any."""
        if self.calibrating:
            return torch.ones_like(losses)
        fixed = self.fixed
        return torch.tensor([fixed[e] for e in step.entries], dtype=torch.float64)

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """One weighted walk: with the batch's own weights in the warm-up, fixed ones after it."""
        if not self.calibrating:
            super().collect(module, step, scaled, means, shares)
            return
        if self._length == 0:
            raise BalancerError("Calibrated needs a trainer to choose steps: give it a number.")
        split = self.parameters_of(module)
        require_shared(self, module, split.shared)
        present = [e for e in self.entries if e in means]
        update = self.step(present)

        def merge(border: Border) -> Merged:
            inner = surrogate_gramian(self.stages, border, step, module.network, split, update)
            norms = inner.diagonal().sqrt()
            if not self.all_finite(torch.isfinite(norms), update):
                return Merged(torch.full_like(border.rows[0], float("nan")))
            at = update.present[norms > 0]
            self._fresh[0, at] += norms[norms > 0].log()
            self._fresh[1, at] += 1
            weights = inverse_norm_weights(norms)
            return Merged(combine(border.rows, weights), weights, weights)

        found = merge_at_border(step, scaled, split, present, shares, self.loss_scale(), merge)
        weights = torch.ones(len(present)) if found.weights is None else found.weights
        self._latest = dict(zip(present, weights.tolist(), strict=True))

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Average gradients over ranks; at the warm-up's end, say what it found."""
        split = self.parameters_of(module)
        mean_gradients([*split.shared, *split.all_own()])
        if not self.calibrating:
            super().finish(module, losses, step)
            return
        self._sums = self._sums + self._fresh
        self._fresh.zero_()
        self.weights.update(self._latest)
        if self.index + 1 == self._length:
            listed = ", ".join(f"{entry}: {weight:.4g}" for entry, weight in self.fixed.items())
            rank_zero_info(
                f"Calibrated: fixed weights from here on, for Static: weights: {{{listed}}}"
            )

    def method_state(self) -> dict[str, Any]:
        """Sums and counts of log lengths, and the length of the warm-up."""
        return {"sums": self._sums, "length": self._length}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._sums = state["sums"].clone()
        self._length = state["length"]
