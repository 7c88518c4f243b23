"""Alpha-fair gains, with decoders that bring the tasks' gradients closer to the common one."""

from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.fairgrad import FairGrad
from mtl_core.balancing.feature import require_border, require_shared
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.passes import aux_pass
from mtl_core.balancing.ranks import sum_over_ranks, world_size
from mtl_core.balancing.rows import accumulate, kept_graphs, trunk_gradient
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.nn.parts import ParameterSplit


class _Slope(NamedTuple):
    """Gradient of one loss at its task's side of the border, with a graph to the decoder."""

    task: str
    entry: str
    tensors: list[Tensor | None]


class ConsMTL(FairGrad):
    r"""FairGrad for the trunk; decoders also learn to send it gradients that agree.

    Qin, Wang and Yan, "Towards Consistent Multi-Task Learning: Unlocking the Potential of
    Task-Specific Parameters", CVPR 2025: the upper level combines the tasks' gradients of the trunk
    by `FairGrad`, the lower level gives decoder t, beside its own loss, the objective

    .. math:: -\lambda \, \bigl\langle \delta_t, \sum_s w_s \delta_s \bigr\rangle, \qquad
        \delta_t = \partial \ell_t / \partial z ,

    differentiated through :math:`\delta_t` (second derivatives of the decoders only; the sum is
    taken as fixed, which is not verified against the authors' code). Its gradient is cut to a share
    of the decoder's own gradient.

    The trunk's update has the degree of `FairGrad`'s. Decoders are not weighted otherwise. One
    further walk of the decoders' second derivatives; their
    graphs are kept until the window's end, so that accumulation costs memory. Needs a border, exact
    rows, and decoders that can be differentiated twice (not compiled ones). LibMTL and TorchJD do
    not have it.

    Args:
        alpha: fairness, see `FairGrad`.
        coefficient: :math:`\lambda`, not negative; 1 as published.
        limit: greatest length of that gradient in terms of the decoder's own; 0.1 as published.
        stages: options common to all methods of this family, with ``gram: exact``.
        seed: unused; every balancer has one.
    """

    source = "Qin et al., CVPR 2025"
    needs = "Gramian and features"

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        coefficient: float = 1.0,
        limit: float = 0.1,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(alpha=alpha, stages=stages, seed=seed)
        if not coefficient >= 0:
            raise ArgumentError("coefficient", "not be negative", coefficient)
        if not limit > 0:
            raise ArgumentError("limit", "be positive", limit)
        rules = self.stages.gram == "exact" and self.stages.refresh == 1
        if not rules or self.stages.group != "whole":
            raise ArgumentError(
                "stages", "have gram: exact, refresh: 1 and group: whole", self.stages.gram
            )
        self.coefficient = coefficient
        self.limit = limit
        self._slopes: list[list[_Slope]] = []

    def prepare(self, entries: int) -> None:
        """Forget graphs of an earlier run too."""
        super().prepare(entries)
        self._slopes = []

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse networks without a border, and compiled decoders."""
        checked = super().check(trainer, module)
        require_border(self, checked)
        if getattr(module, "compiled", False):
            raise BalancerError(
                "ConsMTL differentiates decoders twice, which compiled ones do not allow."
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
        """Rows of one micro-batch, with the graph of the decoders' slopes kept."""
        split = self.parameters_of(module)
        require_shared(self, module, split.shared)
        if step.features is None or not step.cut:
            raise BalancerError("ConsMTL needs decoders behind a border.")
        buffer = self._rows(module.network, split)
        factors, aux_factor = step.factors(scaled)
        aux_pass(buffer, step, aux_factor, split)
        border, slopes = step.features.tensors(), []
        for i, (entry, loss) in enumerate(step.losses.items()):
            task = step.owner[entry]
            side, own = step.cut[task].tensors(), split.own[task]
            found = torch.autograd.grad(
                loss,
                [*side, *own],
                factors[i] * shares[entry],
                create_graph=True,
                allow_unused=True,
            )
            at_cut: list[Tensor | None] = list(found[: len(side)])
            accumulate(own, [None if g is None else g.detach() for g in found[len(side) :]])
            rows = [None if d is None else d.detach() for d in at_cut]
            last = i == len(step.losses) - 1
            with kept_graphs():
                row = trunk_gradient(border, rows, split.shared, retain_graph=not last)
            buffer.add(self.entries.index(entry), row)
            slopes.append(_Slope(task, entry, at_cut))
        self._slopes.append(slopes)

    def finish(self, module: Balanceable, losses: Tensor, step: Step) -> None:
        """FairGrad's update, then the decoders' further gradient."""
        super().finish(module, losses, step)
        windows, self._slopes = self._slopes, []
        weights = {e: self.weights[e] for e in step.entries}
        if self.coefficient == 0 or any(w != w for w in weights.values()):
            return
        split = self.parameters_of(module)
        own = split.all_own()
        if not own:
            return
        flat = torch.zeros(sum(p.numel() for p in own), device=own[0].device)
        views = flat.split([p.numel() for p in own])
        place = {id(p): view for p, view in zip(own, views, strict=True)}
        for slopes in windows:
            for parameter, gradient in _pulls(slopes, weights, split):
                place[id(parameter)] += gradient.flatten()
        factor = -self.coefficient / (self.loss_scale() * world_size() ** 2)
        sum_over_ranks(flat).mul_(factor)
        for parameters in split.own.values():
            known = [p for p in parameters if p.grad is not None]
            if known:
                extra = [place[id(p)].view(p.shape) for p in known]
                cut = limited([p.grad for p in known if p.grad is not None], extra, self.limit)
                accumulate(
                    known, [(g * cut).to(p.dtype) for g, p in zip(extra, known, strict=True)]
                )


def limited(own: list[Tensor], extra: list[Tensor], limit: float) -> float:
    """Factor that keeps a further gradient below `limit` times the length of the own one."""
    length, most = (
        float(torch.stack([torch.linalg.vector_norm(g.float()) for g in part]).norm())
        for part in (extra, own)
    )
    return min(1.0, limit * most / length) if length > 0 else 1.0


def _pulls(
    slopes: list[_Slope], weights: dict[str, float], split: ParameterSplit
) -> list[tuple[torch.nn.Parameter, Tensor]]:
    """Gradients of the inner products of every slope with the weighted sum of all."""
    count = len(slopes[0].tensors) if slopes else 0
    common: list[Tensor | None] = []
    for i in range(count):
        parts = [s.tensors[i] for s in slopes]
        known = [
            d.detach() * weights[s.entry]
            for s, d in zip(slopes, parts, strict=True)
            if d is not None
        ]
        common.append(torch.stack(known).sum(0) if known else None)
    found: list[tuple[torch.nn.Parameter, Tensor]] = []
    for slope in slopes:
        products = [
            (d * c).sum()
            for d, c in zip(slope.tensors, common, strict=True)
            if d is not None and c is not None and d.requires_grad
        ]
        own = split.own[slope.task]
        if not products or not own:
            continue
        gradients = torch.autograd.grad(
            torch.stack(products).sum(), own, retain_graph=True, allow_unused=True
        )
        found += [(p, g) for p, g in zip(own, gradients, strict=True) if g is not None]
    return found
