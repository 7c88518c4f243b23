"""Methods that work on gradients of the features: one walk of the trunk for all tasks."""

from abc import abstractmethod
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.ranks import mean_gradients, sum_over_ranks, world_size
from mtl_core.balancing.rows import accumulate, decoder_pass, gramian, trunk_gradient
from mtl_core.errors import BalancerError, NonFiniteLossError


class Merged(NamedTuple):
    """One gradient of the features (m,), and the weights (T,) behind it where there are such."""

    gradient: Tensor
    weights: Tensor | None = None


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

    def __init__(self, *, weight_decoders: bool = False, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.weight_decoders = weight_decoders

    @abstractmethod
    def merge(self, rows: Tensor, losses: Tensor, step: Step) -> Merged:
        """Merge the tasks' gradients of the features.

        Args:
            rows: (T, m) float32 unscaled gradients of this rank's features, m being samples times
                feature size; `inner` gives their products over all ranks.
            losses: (T,) float64, over all ranks.
            step: the update.
        """

    def inner(self, rows: Tensor) -> Tensor:
        """Gramian (T, T) float64 of the feature gradients of all ranks together."""
        total = gramian(rows)
        if world_size() > 1:
            total = sum_over_ranks(total.to(rows.device)).cpu() / world_size() ** 2
        return total

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse networks without a border too."""
        checked = super().check(trainer, module)
        if not checked.network.independent_decoders():
            raise BalancerError(
                f"{type(self).__name__} works at the border between encoder and decoders, which "
                f"{type(checked.network).__name__} does not have."
            )
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
        assert step.features is not None
        network = module.network
        shared = network.shared_parameters()
        if not shared:
            raise BalancerError(
                f"{type(self).__name__} balances shared parameters, but {type(network).__name__} "
                "has none that are trainable."
            )
        factors, aux_factor = step.factors(scaled)
        share = torch.tensor([shares[e] for e in step.losses], dtype=factors.dtype)
        at_cut, own = decoder_pass(step, factors * share.to(factors.device), network)
        border = step.features.tensors()
        present = [e for e in self.entries if e in means]
        scale = self.loss_scale()
        rows = (
            torch.stack([_flat(border, at_cut.get(e, [None] * len(border))) for e in present])
            / scale
        )
        losses = torch.tensor([means[e] for e in present], dtype=torch.float64)
        # Every rank has to reach the same verdict, since all of them take part in what follows.
        broken = sum_over_ranks((~torch.isfinite(rows.sum(1))).float())
        if not bool(broken.any()):
            merged = self.merge(rows, losses, self.step(present))
        elif self.has_scaler():
            merged = Merged(torch.full_like(rows[0], float("nan")))
        else:
            bad = [e for e, b in zip(present, broken.tolist(), strict=True) if b]
            raise NonFiniteLossError(
                {f"gradient of {e}": float("nan") for e in bad}, self.index, []
            )
        weights = dict.fromkeys(present, 1.0)
        if merged.weights is not None:
            weights = dict(zip(present, merged.weights.tolist(), strict=True))
        self._latest = weights
        for entry, gradients in own.items():
            factor = weights[entry] if self.weight_decoders else 1.0
            accumulate(
                network.task_parameters(step.owner[entry]),
                [None if g is None else g * factor for g in gradients],
            )
        parts = (merged.gradient * scale).split([b.numel() for b in border])
        outgoing: list[Tensor | None] = [
            part.view(b.shape).to(b.dtype) for part, b in zip(parts, border, strict=True)
        ]
        aux = step.aux if step.aux is not None and step.aux.requires_grad else None
        gradients = trunk_gradient(border, outgoing, shared, retain_graph=aux is not None)
        accumulate(shared, gradients)
        if aux is not None:
            found = torch.autograd.grad(aux, shared, grad_outputs=aux_factor, allow_unused=True)
            accumulate(shared, found)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """Average all gradients over ranks."""
        mean_gradients([p for p in module.network.parameters() if p.requires_grad])
        self.weights.update(self._latest)


def _flat(border: list[Tensor], gradients: list[Tensor | None]) -> Tensor:
    parts = [
        torch.zeros(b.numel(), device=b.device) if g is None else g.float().flatten()
        for b, g in zip(border, gradients, strict=True)
    ]
    return torch.cat(parts)
