"""Weights on the simplex of which only some entries are present."""

import torch
from torch import Tensor


def project_to_simplex(point: Tensor) -> Tensor:
    """The closest (T,) point with entries not negative that sum to one (Held et al. 1974).

    Args:
        point: (T,) finite.
    """
    ordered = point.sort(descending=True).values
    excess = (ordered.cumsum(0) - 1) / torch.arange(1, len(point) + 1, dtype=point.dtype)
    active = int((ordered > excess).sum())
    return (point - excess[active - 1]).clamp_min(0)


def restricted(weights: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Part of a point on the simplex, brought to a sum of one, and the sum that it had.

    Args:
        weights: (T,) on the simplex.
        present: (P,) positions.

    Returns:
        (P,) equal shares where the part has no weight at all; and the scalar sum.
    """
    part = weights[present]
    mass = part.sum()
    if not float(mass) > 0:
        return torch.full_like(part, 1 / len(part)), mass
    return part / mass, mass
