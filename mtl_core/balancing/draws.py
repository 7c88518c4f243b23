"""Random weights that are the same on all processes."""

import numpy as np
import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.errors import ArgumentError


def dirichlet(step: Step, entries: int, concentration: float) -> Tensor:
    """A draw from the symmetric Dirichlet distribution, restricted to the entries present.

    It is drawn for all entries of the run, so that a task's share relative to another does not
    depend on which further ones a micro-batch holds; a restriction is Dirichlet again.

    Args:
        step: whose generator decides.
        entries: number of entries of the run.
        concentration: positive; 1 is uniform on the simplex, less prefers its corners.

    Returns:
        (T,) float64 on the simplex.
    """
    seed = int(torch.randint(2**62, (1,), generator=step.generator))
    drawn = np.random.default_rng(seed).dirichlet(np.full(entries, concentration))
    part = torch.from_numpy(drawn)[step.present].clamp_min(1e-300)
    return part / part.sum()


def check_concentration(concentration: float | None, preference: object) -> None:
    """Refuse a concentration that is not positive, or that stands beside a fixed preference.

    Raises:
        ArgumentError: names which.
    """
    if concentration is None:
        return
    if not 0 < concentration < float("inf"):
        raise ArgumentError("concentration", "be positive and finite", concentration)
    if preference:
        raise ArgumentError("preference", "be empty where it is drawn (concentration)", preference)
