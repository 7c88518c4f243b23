"""Projection onto the cone of directions that hurt no task."""

import numpy as np
import torch
from torch import Tensor

from mtl_core.balancing.solvers import Floats, minimise_nonnegative, to_numpy
from mtl_core.errors import ArgumentError

_TOLERANCE = 1e-12
_PATIENCE = 3


def dual_cone_weights(gramian: Tensor, starts: Tensor, *, regularisation: float = 0.0) -> Tensor:
    r"""Weights of projections of :math:`J^\top u` onto the dual cone :math:`\{x: J x \ge 0\}`.

    They solve :math:`\min_v v^\top G v` subject to :math:`v \ge u` (Quinton and Rey 2024,
    proposition 1), here in units of the rows' lengths: with :math:`\beta_t = \|g_t\| v_t` and the
    cosines :math:`C` the matrix is :math:`C + \varepsilon I`, so that :math:`\varepsilon` is
    relative to each row and :math:`\langle g_t, d\rangle \ge -\varepsilon \|g_t\|^2 v_t`.

    Args:
        gramian: (T, T) float64, of a positive diagonal.
        starts: :math:`u`, (T,) not negative; or several of them, (M, T), solved at once.
        regularisation: :math:`\varepsilon`; makes the weights unique, and bounded where rows
            are dependent.

    Returns:
        Weights of the shape of `starts`, not below them.
    """
    inner = to_numpy(gramian)
    lengths = np.sqrt(inner.diagonal())
    matrix = inner / (lengths * lengths[:, None]) + regularisation * np.eye(len(inner))
    least = to_numpy(starts).reshape(-1, len(inner)) * lengths
    units = least.max(1, keepdims=True)
    found = _minimise_all(matrix, -(least / units) @ matrix)
    extra = torch.from_numpy(found * units / lengths).to(starts.dtype)
    return starts + extra.view(starts.shape)


def _minimise_all(matrix: Floats, linear: Floats) -> Floats:
    r"""Rows (M, T) that minimise :math:`\tfrac12 v^\top A v - b_m^\top v` over :math:`v \ge 0`.

    Block principal pivoting as in `minimise_nonnegative`, on all right-hand sides in one
    vectorised solve; it takes over where pivoting does not end.
    """
    total, size = linear.shape
    found = np.zeros_like(linear)
    passive = linear > 0
    active = np.flatnonzero(passive.any(1))  # the rest conflict with no task: zero is optimal
    fewest = np.full(total, size + 1)
    patience = np.full(total, _PATIENCE)
    absolute, unit = np.abs(matrix), np.eye(size)
    for _ in range(3 * size + 10):
        if not len(active):
            return found
        inside, pull = passive[active], linear[active]
        blocks = np.where(inside[:, :, None] & inside[:, None, :], matrix, unit)
        try:
            points = np.linalg.solve(blocks, np.where(inside, pull, 0.0)[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            break
        slack = _TOLERANCE * (np.abs(pull) + np.abs(points) @ absolute)
        wrong = np.where(inside, points < 0, pull - points @ matrix > slack)
        counts = wrong.sum(1)
        found[active[counts == 0]] = points[counts == 0]
        better = counts < fewest[active]
        fewest[active] = np.where(better, counts, fewest[active])
        patience[active] = np.where(better, _PATIENCE, patience[active] - 1)
        single = ~better & (patience[active] < 0)  # one at a time, which cannot cycle
        if single.any():
            last = size - 1 - wrong[:, ::-1].argmax(1)
            wrong[single] = (np.arange(size) == last[:, None])[single] & wrong[single]
        passive[active] = inside ^ wrong
        active = active[counts > 0]
    for i in active:
        found[i] = minimise_nonnegative(matrix, linear[i])
    return found


def require_regularisation(value: float) -> None:
    """Refuse a negative regularisation."""
    if not 0 <= value < 1:
        raise ArgumentError("regularisation", "lie in [0, 1)", value)
