"""Several tasks together: partial pooling, integrated on a grid.

Effects of tasks scatter around a mean, δ_t ~ N(μ, τ²), and each is measured with an error,
d_t ~ N(δ_t, se_t²). μ has a flat prior and τ a half-Cauchy one. Given τ everything is normal, so
that posteriors are mixtures of normals over a grid of τ, and no sampler is needed.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from mtl_core.errors import ArgumentError
from mtl_core.stats.checks import Array, between, not_negative, positive, same_length, vector
from mtl_core.stats.records import Chances, Interval

POINTS = 1500
"""Half of the points of the grid of τ."""


@dataclass(frozen=True)
class Pooled:
    """Posterior of effects over tasks.

    Attributes:
        effects: of each task, drawn towards the mean.
        chances: of each task, against the margin.
        shrinkage: of each task, 0 (left alone) to 1 (replaced by the mean).
        mean: μ, the effect over tasks.
        mean_chances: of μ, against the margin.
        positive: P(μ > 0).
        spread: τ, the standard deviation over tasks (mean and central interval).
        new_task: prediction of the effect on a task that was not measured (median and interval).
        new_task_chances: of it, against the margin.
    """

    effects: tuple[Interval, ...]
    chances: tuple[Chances, ...]
    shrinkage: tuple[float, ...]
    mean: Interval
    mean_chances: Chances
    positive: float
    spread: Interval
    new_task: Interval
    new_task_chances: Chances


def partial_pooling(
    effects: npt.ArrayLike,
    errors: npt.ArrayLike,
    margin: float = 0.0,
    level: float = 0.95,
    *,
    scale: float | None = None,
) -> Pooled:
    """Effects of a method on several tasks, each learning from the others.

    Args:
        effects: (T,) difference to the baseline in each task, in one unit (relative gains in
            percent, for one), T >= 2.
        errors: (T,) standard error of each, above 0.
        margin: effect that does not matter.
        level: posterior mass of the intervals.
        scale: of the half-Cauchy prior of τ; None takes the median error.

    Raises:
        ArgumentError: fewer than two tasks, unequal lengths, errors that are not positive.

    >>> found = partial_pooling([28, 8, -3, 7, -1, 1, 18, 12], [15, 10, 16, 11, 9, 11, 10, 18])
    >>> round(found.effects[0].estimate, 1), round(found.mean.estimate, 1)
    (10.2, 7.9)
    """
    d, se = vector("effects", effects, 2), vector("errors", errors, 2)
    same_length("errors", se, "effects", d)
    if (se <= 0).any():
        raise ArgumentError("errors", "be above 0", float(se.min()))
    margin, level = not_negative("margin", margin), between("level", level, 0, 1)
    tau, mass = _posterior_of_tau(d, se, _scale(se, scale))
    precision = 1 / (se**2 + tau[:, None] ** 2)  # (G, T)
    variance = 1 / precision.sum(1)
    centre = variance * (precision @ d)
    shrink = se**2 * precision
    effects_at = (1 - shrink) * d + shrink * centre[:, None]
    # Of δ_t given μ and τ, and of what it takes from the uncertain μ.
    spread_at = shrink * tau[:, None] ** 2 + shrink**2 * variance[:, None]
    tasks = [_Mixture(effects_at[:, t], np.sqrt(spread_at[:, t]), mass) for t in range(len(d))]
    mean = _Mixture(centre, np.sqrt(variance), mass)
    new = _Mixture(centre, np.sqrt(variance + tau**2), mass)
    low, high = np.interp([(1 - level) / 2, (1 + level) / 2], np.cumsum(mass) - mass / 2, tau)
    return Pooled(
        effects=tuple(t.interval(level) for t in tasks),
        chances=tuple(t.chances(margin) for t in tasks),
        shrinkage=tuple(float(s) for s in mass @ shrink),
        mean=mean.interval(level),
        mean_chances=mean.chances(margin),
        positive=mean.above(0.0),
        spread=Interval(float(mass @ tau), float(low), float(high), level),
        new_task=new.interval(level, median=True),
        new_task_chances=new.chances(margin),
    )


class _Mixture:
    """Normals at `centres` with deviations `widths`, weighted by `mass`."""

    def __init__(self, centres: Array, widths: Array, mass: Array) -> None:
        self.centres, self.widths, self.mass = centres, widths, mass

    def above(self, value: float) -> float:
        tails = special.ndtr((self.centres - value) / self.widths)
        return min(1.0, float(self.mass @ tails))

    def quantile(self, share: float) -> float:
        low = float((self.centres - 40 * self.widths).min())
        high = float((self.centres + 40 * self.widths).max())
        for _ in range(200):
            middle = (low + high) / 2
            if not low < middle < high:
                break
            if 1 - self.above(middle) < share:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def interval(self, level: float, *, median: bool = False) -> Interval:
        low, high = self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)
        middle = self.quantile(0.5) if median else float(self.mass @ self.centres)
        return Interval(middle, low, high, level)

    def chances(self, margin: float) -> Chances:
        better = self.above(margin)
        worse = max(0.0, 1 - self.above(-margin))
        return Chances(worse=worse, equal=max(0.0, 1 - better - worse), better=better)


def _scale(se: Array, scale: float | None) -> float:
    return float(np.median(se)) if scale is None else positive("scale", scale)


def _posterior_of_tau(d: Array, se: Array, scale: float) -> tuple[Array, Array]:
    """Grid of τ and its posterior masses, μ integrated out."""
    # Fine where the prior has its mass, and in logarithms as far as the effects can push.
    far = 1e4 * max(scale, float(np.ptp(d)))
    of_prior = scale * np.tan(np.pi / 2 * (np.arange(POINTS) / POINTS))
    tau = np.unique(np.concatenate([of_prior, np.geomspace(1e-3 * scale, far, POINTS)]))
    steps = np.diff(tau)
    widths = np.concatenate([[steps[0]], steps[1:] + steps[:-1], [steps[-1]]]) / 2
    variance = se**2 + tau[:, None] ** 2
    total = (1 / variance).sum(1)
    centre = (d / variance).sum(1) / total
    misfit = (np.square(d - centre[:, None]) / variance).sum(1)
    log_mass = (
        np.log(widths)
        - np.log1p((tau / scale) ** 2)
        - 0.5 * (np.log(variance).sum(1) + np.log(total) + misfit)
    )
    mass = np.exp(log_mass - log_mass.max())
    return tau, mass / mass.sum()
