"""Flat minima by task at the cost of one backward and two forwards a task."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtl_core.balancing.by_name import check_choice
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.moved_weights import MovedWeights
from mtl_core.balancing.passes import aux_pass, summed_pass
from mtl_core.balancing.ranks import sum_over_ranks, world_size
from mtl_core.balancing.rows import RowBuffer
from mtl_core.balancing.sharpness import (
    Inner,
    SharpnessBalancer,
    ascent_length,
    climb,
    recompute_of,
)
from mtl_core.errors import ArgumentError
from mtl_core.nn.parts import ParameterSplit


class SAMO(SharpnessBalancer):
    r"""Sharpness-aware rows whose perturbations need one backward for all tasks together.

    "SAMO: A Lightweight Sharpness-Aware Approach for Multi-Task Optimization with Joint
    Global-Local Perturbation", ICCV 2025 (code: OptMN-Lab/SAMO). With the gradient :math:`\nabla
    \ell_0` of the mean loss and a two-point estimate along one Gaussian direction :math:`u_t` a
    task,

    .. math:: \hat\nabla \ell_t = \frac{\ell_t(\theta + \mu u_t) - \ell_t(\theta - \mu u_t)}{2 \mu}
        \, u_t, \qquad \epsilon_t = \rho \, \frac{\alpha \nabla \ell_0 + (1 - \alpha) \hat\nabla
        \ell_t}{\lVert \cdot \rVert},

    the rows are those at :math:`\theta + \epsilon_t`; any method combines them. Each parameter
    tensor's estimate is first brought to the length of :math:`\nabla \ell_0` there. A decoder is
    moved by `rho_own` along its own gradient, as in the released code, and gets its gradient there.
    A step costs 1 + T backwards and 1 + 3 T forwards of the trunk.

    The estimate along one direction of so many is nearly orthogonal to the true gradient; after
    rescaling only its sign carries information about the task. Differences to the released code: it
    writes the mixture with :math:`\beta = 1 - \alpha`, evaluates the two points in evaluation mode
    (here dropout masks and batch statistics are those of the first pass), and does not rescale on
    NYUv2 (``rescale: none``). Its launch script takes :math:`\rho` = 0.001, :math:`\beta` = 0.5 and
    :math:`\mu` = 0.01. The paper's grids, :math:`\rho` in {0.01, 0.05, 0.1, 0.5} and :math:`\alpha`
    in {0.3, 0.5, 0.7}, are unverified. There is no constant beside the norm.

    Under gradient accumulation every micro-batch has perturbations of its own. Under several
    processes gradient and differences are averaged before the perturbation.

    Args:
        inner: combines the rows; see `SharpnessBalancer`. Default: CAGrad with c = 0.4.
        rho: radius for the shared parameters, not negative.
        rho_own: radius for the decoders; None takes `rho`.
        alpha: share of the mean loss' gradient, in [0, 1].
        mu: size of the two-point step, positive.
        rescale: bring the estimate of every parameter tensor (``layer``) to the length of the mean
            loss' gradient, or ``none``.
        adaptive: measure perturbations relative to the weights.
        seed: of the Gaussian directions.
    """

    source = "SAMO, ICCV 2025"
    walks = "T + 1"

    def __init__(
        self,
        *,
        inner: Inner | None = None,
        rho: float = 0.001,
        rho_own: float | None = None,
        alpha: float = 0.5,
        mu: float = 0.01,
        rescale: Literal["layer", "none"] = "layer",
        adaptive: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(inner=inner, rho=rho, rho_own=rho_own, adaptive=adaptive, seed=seed)
        if not 0 <= alpha <= 1:
            raise ArgumentError("alpha", "lie in [0, 1]", alpha)
        if not 0 < mu < float("inf"):
            raise ArgumentError("mu", "be finite and positive", mu)
        check_choice("rescale", rescale, ("layer", "none"))
        self.alpha = alpha
        self.mu = mu
        self.rescale = rescale

    def collect_moved(
        self,
        step: TaskLosses,
        scaled: Tensor,
        split: ParameterSplit,
        buffer: RowBuffer,
        shares: dict[str, float],
        update: Step,
    ) -> None:
        """The mean loss' gradient, two losses a task, then the rows at the moved points."""
        factors, aux_factor = step.factors(scaled)
        aux_pass(buffer, step, aux_factor, split)
        flat = self._mean_gradient(step, factors, split, shares)
        if not bool(torch.isfinite(flat.sum())):
            self.all_finite(torch.zeros(len(update.entries), dtype=torch.bool), update)
            self.spoil(buffer)
            return
        everything = [*split.shared, *split.all_own()]
        parts = flat.split([p.numel() for p in everything])
        gradients = {id(p): x.view(p.shape) for p, x in zip(everything, parts, strict=True)}
        outer = dict(zip(step.losses, factors.unbind(), strict=True))
        seeds = torch.randint(2**62, (len(self.entries),), generator=update.generator).tolist()
        with MovedWeights(everything) as weights:
            slopes = self._mean_slopes(step, split, shares, weights, seeds)
            mean = [gradients[id(p)] / len(update.entries) for p in split.shared]
            for entry in step.losses:
                at = self.entries.index(entry)
                direction = _gaussian(split.shared, seeds[at])
                if slopes is None:
                    slope = self._slope(step, split, weights, entry, direction)
                else:
                    slope = slopes[at]
                self._climb(split.shared, self._mixture(mean, direction, slope), self.rho)
                for task, own in split.own.items():
                    if task == step.owner[entry] or not step.cut:
                        self._climb(own, [gradients[id(p)] for p in own], self.rho_own)
                self.add_moved(step, outer, split, buffer, shares, [entry])
                weights.restore()

    def _climb(self, parameters: list[nn.Parameter], ascent: list[Tensor], radius: float) -> None:
        length = ascent_length(parameters, ascent, adaptive=self.adaptive)
        climb(parameters, ascent, radius=radius, length=length, adaptive=self.adaptive)

    def _mean_gradient(
        self, step: TaskLosses, factors: Tensor, split: ParameterSplit, shares: dict[str, float]
    ) -> Tensor:
        """Unscaled gradient of the summed loss over all ranks, of shared and own parameters."""
        weight = torch.tensor([shares[e] for e in step.losses], dtype=factors.dtype)
        shared, own = summed_pass(step, factors * weight.to(factors.device), split)
        flat = torch.cat(
            [
                torch.zeros(p.numel(), device=p.device) if g is None else g.float().flatten()
                for p, g in zip([*split.shared, *split.all_own()], [*shared, *own], strict=True)
            ]
        )
        if step.losses:
            flat /= factors.mean()
        return sum_over_ranks(flat).div_(world_size())

    def _slope(
        self,
        step: TaskLosses,
        split: ParameterSplit,
        weights: MovedWeights,
        entry: str,
        direction: list[Tensor],
    ) -> float:
        """Derivative of this rank's loss along a direction, from two points."""
        again, ends = recompute_of(self, step), []
        for sign in (1.0, -1.0):
            climb(split.shared, direction, radius=sign * self.mu, length=1.0, adaptive=False)
            torch.clear_autocast_cache()
            ends.append(again(tasks=[step.owner[entry]]).values[entry])
            weights.restore()
        return (ends[0] - ends[1]) / (2 * self.mu)

    def _mean_slopes(
        self,
        step: TaskLosses,
        split: ParameterSplit,
        shares: dict[str, float],
        weights: MovedWeights,
        seeds: list[int],
    ) -> list[float] | None:
        """Derivatives (T,) over all ranks; None on one process, which needs no exchange."""
        if world_size() == 1:
            return None
        found = torch.zeros(len(self.entries), dtype=torch.float64)
        for entry in step.losses:
            at = self.entries.index(entry)
            direction = _gaussian(split.shared, seeds[at])
            found[at] = shares[entry] * self._slope(step, split, weights, entry, direction)
        device = split.shared[0].device
        slopes: list[float] = (sum_over_ranks(found.to(device)) / world_size()).tolist()
        return slopes

    def _mixture(self, mean: list[Tensor], direction: list[Tensor], slope: float) -> list[Tensor]:
        """The mean loss' gradient and the estimate of one task."""
        mixed = []
        for whole, unit in zip(mean, direction, strict=True):
            factor: float | Tensor = slope
            if self.rescale == "layer":
                length = unit.norm()
                factor = float(slope > 0) - float(slope < 0)
                factor = factor * whole.norm() / torch.where(length > 0, length, 1.0)
            mixed.append(self.alpha * whole + unit * ((1 - self.alpha) * factor))
        return mixed


def _gaussian(like: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Normal numbers in the shapes of some tensors; the same for the same seed."""
    device = like[0].device
    generator = torch.Generator(device).manual_seed(seed)
    return [torch.randn(p.shape, generator=generator, device=device) for p in like]
