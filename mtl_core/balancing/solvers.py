"""Small solvers on T×T matrices, in float64 on the CPU: for so few tasks exactness is cheap."""

import torch
from torch import Tensor


def nonnegative_quadratic(matrix: Tensor, linear: Tensor, *, tolerance: float = 1e-12) -> Tensor:
    r"""Minimise :math:`\tfrac12 v^\top A v - b^\top v` over :math:`v \ge 0`.

    A finite active-set method: Lawson and Hanson's non-negative least squares (1974, chapter 23) in
    normal-equation form.

    Args:
        matrix: :math:`A`, (T, T) symmetric positive semi-definite.
        linear: :math:`b`, (T,).
        tolerance: relative size of a dual violation that counts as none.

    Returns:
        (T,) minimiser.
    """
    size = matrix.shape[0]
    solution = torch.zeros(size, dtype=matrix.dtype)
    passive = torch.zeros(size, dtype=torch.bool)
    slack = tolerance * float(linear.abs().max())
    for _ in range(10 * size + 10):
        dual = linear - matrix @ solution
        candidates = ~passive & (dual > slack)
        if not bool(candidates.any()):
            break
        passive[int(torch.where(candidates, dual, dual.new_tensor(-torch.inf)).argmax())] = True
        while True:
            block = matrix[passive][:, passive]
            trial = torch.zeros_like(solution)
            trial[passive] = torch.linalg.lstsq(
                block, linear[passive, None], driver="gelsd"
            ).solution[:, 0]
            if bool((trial[passive] > 0).all()):
                solution = trial
                break
            falling = passive & (trial <= 0)
            step = (
                solution[falling] / (solution[falling] - trial[falling]).clamp_min(1e-300)
            ).min()
            solution = solution + step * (trial - solution)
            passive &= solution > 1e-14 * float(solution.max().clamp_min(1e-300))
            solution = torch.where(passive, solution, torch.zeros_like(solution))
            if not bool(passive.any()):
                break
    return solution


def min_norm_point(gramian: Tensor) -> Tensor:
    r"""Weights of the shortest vector in the convex hull of the rows.

    The problem is :math:`\min_{w \in \Delta} w^\top G w`. With :math:`v = \arg\min_{v \ge 0} v^\top
    (\tilde G + \mathbf 1 \mathbf 1^\top) v - 2 \cdot \mathbf 1^\top v` and :math:`\tilde G = G \, T
    / \operatorname{tr} G`, the answer is :math:`w = v / \sum v`: along any ray the value is
    :math:`q / (1 + q)`, monotone in :math:`q = w^\top \tilde G w`. Optimal where :math:`(Gw)_t \ge
    w^\top G w` for all t, with equality where :math:`w_t > 0` (Désidéri 2012).

    Args:
        gramian: (T, T) float64, with at least one positive diagonal entry.

    Returns:
        (T,) weights on the simplex; invariant to the scale of the Gramian.
    """
    size = gramian.shape[0]
    scaled = gramian * (size / gramian.diagonal().sum())
    ones = torch.ones(size, dtype=gramian.dtype)
    point = nonnegative_quadratic(scaled + torch.outer(ones, ones), ones)
    return point / point.sum()
