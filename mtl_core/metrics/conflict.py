"""How much task gradients disagree, read from their Gramian G = J Jᵀ (T, T), G_ij = ⟨g_i, g_j⟩.

T counts tasks; a task whose gradient is zero has no direction, its similarities are zero.
"""

import torch
from torch import Tensor

from mtl_core.errors import ArgumentError


def _norms(gramian: Tensor) -> Tensor:
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1]:
        raise ArgumentError("gramian", "be a square matrix (T, T)", tuple(gramian.shape))
    return gramian.diagonal().clamp_min(0).sqrt()


def _off_diagonal(matrix: Tensor) -> Tensor:
    size = matrix.shape[0]
    rows, columns = torch.triu_indices(size, size, offset=1, device=matrix.device)
    return matrix[rows, columns]


def cosine_similarity(gramian: Tensor) -> Tensor:
    """Cosine of the angle between each pair of gradients, (T, T) in [-1, 1].

    Args:
        gramian: (T, T), symmetric positive semi-definite.

    Raises:
        ArgumentError: not a square matrix.
    """
    norms = _norms(gramian)
    inverse = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
    return (gramian * inverse[:, None] * inverse[None, :]).clamp(-1, 1)


def magnitude_similarity(gramian: Tensor) -> Tensor:
    """2‖g_i‖‖g_j‖ / (‖g_i‖² + ‖g_j‖²), (T, T) in [0, 1]; one where the two norms agree.

    Yu et al. 2020 (PCGrad), definition 2.

    Args:
        gramian: (T, T), symmetric positive semi-definite.

    Raises:
        ArgumentError: not a square matrix.
    """
    norms = _norms(gramian)
    squares = norms.square()
    total = squares[:, None] + squares[None, :]
    product = 2 * norms[:, None] * norms[None, :]
    return torch.where(total > 0, product / total, torch.zeros_like(product))


def conflict_rate(gramian: Tensor) -> Tensor:
    """Share of task pairs with a negative inner product, a scalar in [0, 1]; zero for one task.

    Args:
        gramian: (T, T), symmetric.

    Raises:
        ArgumentError: not a square matrix.
    """
    _norms(gramian)
    if gramian.shape[0] < 2:
        return gramian.new_zeros(())
    return (_off_diagonal(gramian) < 0).to(gramian.dtype).mean()


def condition_number(gramian: Tensor) -> Tensor:
    """Condition number of the cosine matrix in float64, a scalar ≥ 1; infinite if dependent.

    Largest over smallest eigenvalue: 1 for orthogonal gradients, whatever their norms. Senushkin et
    al. 2023 (Aligned-MTL) measure stability by that of the gradient matrix, norms included.

    Args:
        gramian: (T, T), symmetric positive semi-definite.

    Raises:
        ArgumentError: not a square matrix.
    """
    values = torch.linalg.eigvalsh(cosine_similarity(gramian.double()))
    smallest, largest = values[0], values[-1]
    dependent = smallest <= largest * values.numel() * torch.finfo(values.dtype).eps
    return torch.where(dependent, torch.full_like(largest, torch.inf), largest / smallest)


def summary(gramian: Tensor) -> dict[str, float]:
    """Mean and least cosine over pairs, conflict rate, mean magnitude similarity and condition.

    Args:
        gramian: (T, T), symmetric positive semi-definite. One task has no pairs and gives nothing.

    Raises:
        ArgumentError: not a square matrix.
    """
    if gramian.shape[0] < 2:
        return {}
    cosines = _off_diagonal(cosine_similarity(gramian))
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "conflict_rate": float(conflict_rate(gramian)),
        "magnitude_similarity": float(_off_diagonal(magnitude_similarity(gramian)).mean()),
        "condition": float(condition_number(gramian)),
    }


def update_summary(gramian: Tensor, weights: Tensor) -> dict[str, float]:
    """Length of a weighted sum of the gradients, and how it lies to each of them.

    ``update_norm`` is its length, ``update_ratio`` that over the length of the plain sum (what the
    weights do to the learning rate), ``update_cosine_min`` the least cosine to a task's gradient:
    negative where some task gets worse to first order.

    Args:
        gramian: (T, T), symmetric positive semi-definite.
        weights: (T,).

    Raises:
        ArgumentError: not a square matrix.
    """
    norms = _norms(gramian)
    inner = gramian @ weights
    length = float((weights @ inner).clamp_min(0).sqrt())
    plain = float(gramian.sum().clamp_min(0).sqrt())
    cosines = inner / (norms * length)
    return {
        "update_norm": length,
        "update_ratio": length / plain if plain else float("inf"),
        "update_cosine_min": float(cosines.nan_to_num(0.0).min()),
    }
