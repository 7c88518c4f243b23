"""Small solvers on T×T matrices, in float64 on the CPU: for so few tasks exactness is cheap.

Inside they are NumPy: on matrices this small its calls cost a fraction of torch's.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def nonnegative_quadratic(matrix: Tensor, linear: Tensor, *, tolerance: float = 1e-12) -> Tensor:
    r"""Minimise :math:`\tfrac12 v^\top A v - b^\top v` over :math:`v \ge 0`.

    See `minimise_nonnegative`, which this wraps.

    Args:
        matrix: :math:`A`, (T, T) symmetric positive semi-definite.
        linear: :math:`b`, (T,).
        tolerance: relative size of a dual violation that counts as none.

    Returns:
        (T,) minimiser, in the type of `linear`.
    """
    found = minimise_nonnegative(to_numpy(matrix), to_numpy(linear), tolerance=tolerance)
    return torch.from_numpy(found).to(linear.dtype)


def minimise_nonnegative(
    matrix: Floats, linear: Floats, *, start: Floats | None = None, tolerance: float = 1e-12
) -> Floats:
    r"""Minimise :math:`\tfrac12 v^\top A v - b^\top v` over :math:`v \ge 0`, after equilibration.

    Block principal pivoting (Júdice and Pires 1994): all wrong signs change sides at once, which
    takes a handful of solves. Where it fails, as with singular blocks, it is repeated with a tiny
    ridge, and Lawson and Hanson's non-negative least squares (1974, chapter 23) in normal-equation
    form, which is finite, takes the ridge's error off again.

    Args:
        matrix: :math:`A`, (T, T) symmetric positive semi-definite.
        linear: :math:`b`, (T,).
        start: (T,) guess, of which only the support is used.
        tolerance: relative size of a dual violation that counts as none.
    """
    diagonal = matrix.diagonal()
    roots = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    equal = matrix / (roots * roots[:, None])
    pull = linear / roots
    passive = np.ones(len(pull), dtype=bool) if start is None else start > 0
    found = _pivot_blocks(equal, pull, passive, tolerance)
    if found is None:
        ridged = equal + 1e-12 * np.eye(len(pull))
        near = _pivot_blocks(ridged, pull, passive, tolerance)
        found = _lawson_hanson(equal, pull, near, tolerance)
    return found / roots


def _pivot_blocks(
    matrix: Floats, linear: Floats, passive: Flags, tolerance: float
) -> Floats | None:
    """The minimiser, or None where pivoting ends without one."""
    size = len(linear)
    fewest, patience = size + 1, 3
    absolute, height = np.abs(matrix), np.abs(linear)
    for _ in range(3 * size + 10):
        point, regular = solve_block(matrix, linear, passive)
        if not regular:
            return None
        dual = linear - matrix @ point
        slack = tolerance * (height + absolute @ np.abs(point))
        wrong = np.where(passive, point < 0, dual > slack)
        count = int(np.count_nonzero(wrong))
        if count == 0:
            return point
        if count < fewest:
            fewest, patience = count, 3
        elif patience > 0:
            patience -= 1
        else:
            wrong[: wrong.nonzero()[0][-1]] = False
        passive = passive ^ wrong
    return None


def _lawson_hanson(
    matrix: Floats, linear: Floats, start: Floats | None, tolerance: float
) -> Floats:
    size = len(linear)
    point = np.zeros(size) if start is None else start
    passive = point > 0
    for step in range(10 * size + 10):
        if start is None or step > 0:
            dual = linear - matrix @ point
            slack = tolerance * (np.abs(linear) + np.abs(matrix) @ np.abs(point))
            candidates = ~passive & (dual > slack)
            if not candidates.any():
                break
            passive[np.where(candidates, dual, -np.inf).argmax()] = True
        while passive.any():
            trial, _ = solve_block(matrix, linear, passive)
            falling = passive & (trial <= 0)
            if not falling.any():
                point = trial
                break
            gaps = np.maximum(point[falling] - trial[falling], 1e-300)
            point = point + (point[falling] / gaps).min() * (trial - point)
            passive &= point > 1e-14 * max(point.max(), 1e-300)
            point = np.where(passive, point, 0.0)
    return point


def solve_block(matrix: Floats, right: Floats, passive: Flags) -> tuple[Floats, bool]:
    """Solve the block of a matrix of unit diagonal at `passive`; zero elsewhere.

    A numerically singular block gets its shortest least-squares solution.

    Args:
        matrix: (T, T) symmetric positive semi-definite, of unit diagonal.
        right: (T,) or (T, K).
        passive: (T,).

    Returns:
        The solution, shaped as `right`, and whether the block is regular.
    """
    whole = bool(passive.all())
    block = matrix if whole else matrix[passive][:, passive]
    at = right if whole else right[passive]
    if not len(at):
        return np.zeros_like(right), True
    try:
        regular = bool(np.linalg.cholesky(block).diagonal().min() > 1e-6)
    except np.linalg.LinAlgError:
        regular = False
    found = np.linalg.solve(block, at) if regular else np.linalg.lstsq(block, at, rcond=1e-13)[0]
    if whole:
        return np.asarray(found, dtype=np.float64), regular
    full = np.zeros_like(right)
    full[passive] = found
    return full, regular


def min_norm_point(gramian: Tensor) -> Tensor:
    r"""Weights of the shortest vector in the convex hull of the rows.

    The problem is :math:`\min_{w \in \Delta} w^\top G w`, optimal where :math:`(Gw)_t \ge w^\top G
    w` for all t, with equality where :math:`w_t > 0` (Désidéri 2012). See `shortest_in_hull`.

    Args:
        gramian: (T, T) with a positive diagonal.

    Returns:
        (T,) weights on the simplex in its type; invariant to the scale of the Gramian.
    """
    return torch.from_numpy(shortest_in_hull(to_numpy(gramian))).to(gramian.dtype)


def shortest_in_hull(gramian: Floats) -> Floats:
    r"""The weights of `min_norm_point`.

    With :math:`v = \arg\min_{v \ge 0} \tfrac12 v^\top G v - \mathbf 1^\top v` the answer is
    :math:`w = v / \sum v`. The minimum exists unless the hull holds zero; then, and close to it,
    :math:`v = \arg\min_{v \ge 0} \tfrac12 v^\top (\tilde G + \mathbf 1 \mathbf 1^\top) v - \mathbf
    1^\top v` with :math:`\tilde G = G \, T / \operatorname{tr} G` takes its place: along any ray
    its value is a monotone function of :math:`w^\top \tilde G w`.

    Args:
        gramian: (T, T) with a positive diagonal.
    """
    size = len(gramian)
    if size == 1:
        return np.ones(1)
    roots = np.sqrt(gramian.diagonal())
    passive = np.ones(size, dtype=bool)
    cosines = gramian / (roots * roots[:, None])
    point = _pivot_blocks(cosines, roots.min() / roots, passive, tolerance=1e-12)
    if point is not None and point.sum() > 0:
        point = point / roots
        weights: Floats = point / point.sum()
        if not is_stationary(gramian, weights, tolerance=1e-10):
            return weights
    scaled = gramian * (size / gramian.trace())
    point = minimise_nonnegative(scaled + 1.0, np.ones(size))
    simplex: Floats = point / point.sum()
    return simplex


def is_stationary(gramian: Floats, weights: Floats, *, tolerance: float) -> bool:
    r"""Whether the rows cancel: :math:`w^\top G w \le \epsilon \sum_t w_t^2 G_{tt}`.

    Args:
        gramian: (T, T).
        weights: (T,).
        tolerance: the :math:`\epsilon`.
    """
    size = (weights * weights) @ gramian.diagonal()
    return bool(weights @ gramian @ weights <= tolerance * size)


def to_numpy(tensor: Tensor) -> Floats:
    """A float64 array of a small tensor."""
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)
