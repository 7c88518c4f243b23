"""Methods that need only the inner products of the tasks' gradients."""

from abc import abstractmethod

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.rows import combine, gramian
from mtl_core.balancing.rowwise import RowBalancer
from mtl_core.metrics.conflict import summary


class GradientBalancer(RowBalancer):
    """Turns the T×T Gramian of the rows into T weights.

    The method never sees a model: its mathematics is a function of a small float64 matrix, tested
    as such.
    """

    @abstractmethod
    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of the rows.

        Args:
            gramian: (T, T) float64 on the CPU, of unscaled gradients, finite. Rows of zeros (a task
                without gradient) were removed: every diagonal entry is positive.
            losses: (T,) float64.
            step: the update; its entries are those of the Gramian.
        """

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Weighted sum of the rows. A zero row gets weight one, which changes nothing."""
        inner = gramian(rows) / self.loss_scale() ** 2
        alive = inner.diagonal() > 0
        weights = torch.ones(len(step.entries), dtype=torch.float64)
        if bool(alive.any()):
            entries = [e for e, keep in zip(step.entries, alive.tolist(), strict=True) if keep]
            kept = inner[alive][:, alive]
            weights[alive] = self.weigh(kept, losses[alive], self.step(entries))
            self.report.update(summary(kept))
        return combine(rows, weights), weights
