"""Methods that work on gradients of the features: one walk of the trunk for all tasks."""

from abc import abstractmethod
from dataclasses import replace

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.border import Border, Merged, finite_on_all_ranks, merge_at_border
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import mean_gradients, sum_over_ranks, world_size
from mtl_core.balancing.rows import gramian
from mtl_core.balancing.sharded import is_sharded
from mtl_core.errors import BalancerError


class FeatureBalancer(Balancer):
    """Turns T gradients of the features into one, which walks the trunk once.

    The features of different micro-batches are different variables, so a method acts on every
    micro-batch of an accumulation window by itself. Needs a network whose decoders meet only in the
    features.

    Args:
        weight_decoders: multiply every decoder's gradient by its task's weight too.
        seed: of the method's random numbers.
    """

    by_hand = True
    wants_cut = True
    needs = "features"

    def __init__(self, *, weight_decoders: bool = False, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.weight_decoders = weight_decoders
        self._latest: dict[str, float] = {}
        self._shapes: list[torch.Size] = []

    @abstractmethod
    def merge(self, rows: Tensor, losses: Tensor, step: Step) -> Merged:
        """Merge the tasks' gradients of the features.

        Args:
            rows: (T, m) float32 unscaled gradients of this rank's features, m being samples times
                feature size; `inner` gives their products over all ranks.
            losses: (T,) float64, over all ranks.
            step: the update; ``step.samples`` is the size of the micro-batch.
        """

    def inner(self, rows: Tensor) -> Tensor:
        """Gramian (T, T) float64 of the feature gradients of all ranks together."""
        return inner_over_ranks(rows)

    def by_sample(self, rows: Tensor, samples: int) -> Tensor:
        """The rows by sample.

        Args:
            rows: (T, m).
            samples: B.

        Returns:
            (T, B, m / B).

        Raises:
            BalancerError: a tensor of the border does not have a row a sample.
        """
        if not samples or any(len(shape) < 1 or shape[0] != samples for shape in self._shapes):
            raise BalancerError(
                f"{type(self).__name__} looks at samples one by one, which needs features whose "
                f"first axis is the batch of {samples}, found shapes "
                f"{[tuple(shape) for shape in self._shapes]}."
            )
        pieces = rows.split([shape.numel() for shape in self._shapes], dim=1)
        return torch.cat([piece.reshape(len(rows), samples, -1) for piece in pieces], dim=2)

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse networks without a border too."""
        checked = super().check(trainer, module)
        require_border(self, checked)
        return checked

    def collect(
        self,
        module: Balanceable,
        step: TaskLosses,
        scaled: Tensor,
        means: dict[str, float],
        shares: dict[str, float],
    ) -> None:
        """Decoders once, the method, the trunk once."""
        split = self.parameters_of(module)
        require_shared(self, module, split.shared)
        present = [e for e in self.entries if e in means]
        losses = torch.tensor([means[e] for e in present], dtype=torch.float64)
        update = replace(self.step(present), samples=step.size)

        def merge(border: Border) -> Merged:
            self._shapes = [f.shape for f in border.features]
            # Every rank has to reach the same verdict: all of them take part in what follows.
            if not self.all_finite(finite_on_all_ranks(border.rows), update):
                return Merged(torch.full_like(border.rows[0], float("nan")))
            found = self.merge(border.rows, losses, update)
            return found._replace(decoders=found.weights) if self.weight_decoders else found

        found = merge_at_border(step, scaled, split, present, shares, self.loss_scale(), merge)
        weights = [1.0] * len(present) if found.weights is None else found.weights.tolist()
        self._latest = dict(zip(present, weights, strict=True))

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Average all gradients over ranks."""
        split = self.parameters_of(module)
        mean_gradients([*split.shared, *split.all_own()])
        self.weights.update(self._latest)


def inner_over_ranks(rows: Tensor) -> Tensor:
    """Gramian (T, T) float64 of rows (T, m) that hold different columns on every rank."""
    total = gramian(rows)
    if world_size() > 1:
        total = sum_over_ranks(total.to(rows.device)).cpu() / world_size() ** 2
    return total


def require_border(balancer: Balancer, module: Balanceable) -> None:
    """Refuse networks whose tasks meet elsewhere than in the features."""
    if not module.network.independent_decoders():
        raise BalancerError(
            f"{type(balancer).__name__} works at the border between encoder and decoders, which "
            f"{type(module.network).__name__} does not have."
        )


def require_shared(
    balancer: Balancer, module: Balanceable, shared: list[torch.nn.Parameter]
) -> None:
    """Refuse networks without a trainable shared part, and sharded ones."""
    if is_sharded(shared):
        raise BalancerError(
            f"{type(balancer).__name__} works on whole parameters, but the shared ones are sharded "
            "(FSDP2). Use a method that weighs losses, one of the Gramian, or strategy: ddp."
        )
    if not shared:
        raise BalancerError(
            f"{type(balancer).__name__} balances shared parameters, but "
            f"{type(module.network).__name__} has none that are trainable. Unfreeze the encoder, "
            "or use a method that weighs losses."
        )
