"""Projection onto the cone of directions that hurt no task."""

import torch
from torch import Tensor

from mtl_core.balancing.solvers import nonnegative_quadratic
from mtl_core.errors import ArgumentError


def dual_cone_weights(gramian: Tensor, start: Tensor, *, regularisation: float = 0.0) -> Tensor:
    r"""Weights of the projection of :math:`J^\top u` onto the dual cone :math:`\{x: J x \ge 0\}`.

    They solve :math:`\min_v v^\top G v` subject to :math:`v \ge u` (Quinton and Rey 2024,
    proposition 1), here in units of the rows' lengths: with :math:`\beta_t = \|g_t\| v_t` and the
    cosines :math:`C` the matrix is :math:`C + \varepsilon I`, so that :math:`\varepsilon` is
    relative to each row and :math:`\langle g_t, d\rangle \ge -\varepsilon \|g_t\|^2 v_t`.

    Args:
        gramian: (T, T) float64, of a positive diagonal.
        start: :math:`u`, (T,) not negative.
        regularisation: :math:`\varepsilon`; makes the weights unique, and bounded where rows
            are dependent.

    Returns:
        (T,) weights, not below `start`.
    """
    lengths = gramian.diagonal().sqrt()
    matrix = gramian / torch.outer(lengths, lengths)
    matrix = matrix + regularisation * torch.eye(len(matrix), dtype=matrix.dtype)
    least = start * lengths
    unit = least.max()
    extra = nonnegative_quadratic(matrix, -(matrix @ (least / unit)))
    return start + extra * unit / lengths


def require_regularisation(value: float) -> None:
    """Refuse a negative regularisation."""
    if not 0 <= value < 1:
        raise ArgumentError("regularisation", "lie in [0, 1)", value)
