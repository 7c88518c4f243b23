"""Conflict-averse gradient descent: best worst case in a ball around the mean."""

import math
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.solvers import (
    Flags,
    Floats,
    is_stationary,
    minimise_nonnegative,
    shortest_in_hull,
    solve_block,
    to_numpy,
)
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError

_CANCEL = 1e-10  # squared length of a combination, of its parts', below which rows cancel


def cagrad_weights(gramian: Tensor, c: float) -> tuple[Tensor, bool]:
    r"""Weights of CAGrad without rescaling, and whether the rows cancel.

    The update :math:`d = g_0 + u` maximises :math:`\min_t g_t \cdot d` over :math:`\lVert u \rVert
    \le c \lVert g_0 \rVert`, with :math:`g_0` the mean of the rows (Liu et al., NeurIPS 2021, eq.
    2). For a worst case :math:`\nu` the shortest :math:`u` is :math:`J^\top v` with :math:`v =
    \arg\min_{v \ge 0} \tfrac12 v^\top G v - v^\top (\nu \mathbf 1 - G b)`, and its length is a
    convex, growing function of :math:`\nu`: this finds the :math:`\nu` where it is the radius. On
    one support :math:`v` is linear in :math:`\nu`, so that each step solves a quadratic equation
    and the last one is exact. (In the paper's dual, :math:`w = v / \sum v`.)

    Where rows cancel and the radius exceeds what keeps every task from getting worse, the maximum
    is not unique and the published formula divides by zero. Then the shortest such correction is
    taken, the projection of :math:`g_0` on the directions that harm no task: zero where all tasks
    are stationary together.

    Args:
        gramian: (T, T) with a positive diagonal.
        c: radius in units of the mean's length, not negative.

    Returns:
        (T,) weights, invariant to the scale of the Gramian and in its type; and whether the second
        paragraph applied.
    """
    size = len(gramian)
    inner = to_numpy(gramian)
    inner = inner * (size / inner.trace())
    gains = inner.mean(1)
    square = float(gains.mean())
    weights = np.full(size, 1 / size)
    if c == 0 or square <= 1e-14 * inner.trace() / size**2:
        return torch.from_numpy(weights).to(gramian.dtype), False
    found, stationary = _correction(inner, gains, c * square**0.5)
    return torch.from_numpy(weights + found).to(gramian.dtype), stationary


def _correction(inner: Floats, gains: Floats, radius: float) -> tuple[Floats, bool]:
    """The weights of u, and whether the rows cancel."""
    found = _pivot(inner, gains, radius)
    if found is not None:
        return found, False
    return _search(inner, gains, radius)


def _pivot(inner: Floats, gains: Floats, radius: float) -> Floats | None:
    """Change the support and the worst case together until nothing is wrong; None if that fails."""
    size = len(gains)
    lengths = np.sqrt(inner.diagonal())
    cosines, right = _equilibrated(inner, gains, lengths)
    absolute, height = np.abs(cosines), np.abs(right)
    support = np.ones(size, dtype=bool)
    for _ in range(size + 10):
        line = _Line.on(cosines, right, radius, support)
        if line is None or not line.regular:
            return None
        found = line.weights
        dual = right @ (line.goal, -1.0) - cosines @ found
        slack = 1e-12 * (height @ (abs(line.goal), 1.0) + absolute @ np.abs(found))
        wrong = np.where(support, found < 0, dual > slack)
        if not wrong.any():
            found = found / lengths
            near = line.goal > 0 and is_stationary(inner, found, tolerance=_CANCEL)
            return found if line.met and not near else None
        support = support ^ wrong
    return None


def _search(inner: Floats, gains: Floats, radius: float) -> tuple[Floats, bool]:
    """Bracket the worst case; on each support the quadratic equation proposes the next."""
    hull = shortest_in_hull(inner)
    cosines, right = _equilibrated(inner, gains, np.sqrt(inner.diagonal()))
    low = float(gains.min())  # the worst case of no correction
    high = float(hull @ gains) + radius * _length(inner, hull)  # by weak duality
    start: Floats | None = None
    if is_stationary(inner, hull, tolerance=_CANCEL):
        high = 0.0
        start = minimise_nonnegative(inner, -gains)
        if _length(inner, start) <= radius * (1 + 1e-9):
            return start, True
    goal, best = high, np.zeros_like(gains)
    for _ in range(60):
        best = minimise_nonnegative(inner, goal - gains, start=start)
        length = _length(inner, best)
        if abs(length - radius) <= 1e-12 * radius:
            break
        low, high = (goal, high) if length < radius else (low, goal)
        if high - low <= 1e-15 * max(abs(high), abs(low)):
            break
        line = _Line.on(cosines, right, radius, best > 0)
        inside = line is not None and line.met and low < line.goal < high
        goal = line.goal if line is not None and inside else 0.5 * (low + high)
        start = best
    return best, False


def _length(inner: Floats, weights: Floats) -> float:
    return math.sqrt(max(float(weights @ inner @ weights), 0.0))


def _equilibrated(inner: Floats, gains: Floats, lengths: Floats) -> tuple[Floats, Floats]:
    """Cosines (T, T), and ones and gains (T, 2), both over the rows' lengths."""
    right = np.empty((len(gains), 2))
    right[:, 0], right[:, 1] = 1 / lengths, gains / lengths
    return inner / (lengths * lengths[:, None]), right


class _Line(NamedTuple):
    """Corrections of one support are linear in the worst case; the one of the wanted length.

    Args:
        goal: the worst case.
        weights: (T,) of the correction, times the rows' lengths.
        met: whether it has that length; else all are longer, and it is the shortest.
        regular: whether the rows of the support are independent.
    """

    goal: float
    weights: Floats
    met: bool
    regular: bool

    @classmethod
    def on(cls, cosines: Floats, right: Floats, radius: float, support: Flags) -> Self | None:
        """None where the support is empty, or singular beyond use."""
        if not support.any():
            return None
        solved, regular = solve_block(cosines, right, support)
        (a, b), (_, c) = (right.T @ solved).tolist()
        if a <= 0:
            return None
        inside = b * b - a * (c - radius**2)
        goal = (b + max(inside, 0.0) ** 0.5) / a
        return cls(goal, solved @ (goal, -1.0), inside >= 0, regular)


class CAGrad(GradientBalancer):
    r"""Improves the worst-off task as much as a ball around the mean gradient allows.

    Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021.

    .. math:: d = \arg\max_{d} \min_t g_t \cdot d \quad \text{s.t.} \quad \lVert d - g_0 \rVert \le
        c \lVert g_0 \rVert, \qquad g_0 = \tfrac1T \textstyle\sum_t g_t .

    With ``c: 0`` it is the mean, for large c the direction of MGDA; from c = 1 on no task gets
    worse to first order. See `cagrad_weights` for the exact solver and for what happens where rows
    cancel; there TorchJD returns zero and LibMTL noise of length up to :math:`(1 + c) \lVert g_0
    \rVert`. The report holds ``stationary`` for that. With c > 1 just beside a stationary point the
    published direction is rounding noise; that is the method's.

    Degree one at any scale: LibMTL's SLSQP stops at its start for gradients of length 1e-2, TorchJD
    returns zero below a threshold. Decoders are not weighted, as published.

    Args:
        c: radius of the ball, not negative. The paper takes 0.4 for NYUv2 and Cityscapes; 0.5 is
            LibMTL's.
        rescale: what the update is divided by: 0 nothing (TorchJD), 1 :math:`1 + c^2` (official
            code, LibMTL), 2 :math:`1 + c`. No effect with ``scale: sum``, where all agree on the
            plain sum at consensus.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Liu et al., NeurIPS 2021"

    def __init__(
        self, *, c: float = 0.5, rescale: int = 1, stages: Stages | None = None, seed: int = 0
    ) -> None:
        super().__init__(stages=stages, seed=seed)
        if not (c >= 0 and np.isfinite(c)):
            raise ArgumentError("c", "be finite and not negative", c)
        if rescale not in (0, 1, 2):
            raise ArgumentError("rescale", "be 0, 1 or 2", rescale)
        self.c = c
        self.rescale = rescale

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights of the rows, rescaled."""
        weights, stationary = cagrad_weights(gramian, self.c)
        self.report["stationary"] = float(stationary)
        return weights / self._divisor()

    def gain(self, tasks: int) -> float:
        """The ball's far end, rescaled."""
        return (1 + self.c) / self._divisor()

    def _divisor(self) -> float:
        return (1.0, 1 + self.c**2, 1 + self.c)[self.rescale]
