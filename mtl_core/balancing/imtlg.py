"""Impartial multi-task learning: equal projections on all unit gradients."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.solvers import to_numpy
from mtl_core.balancing.stages import Stages
from mtl_core.errors import UnknownNameError


def imtlg_weights(gramian: Tensor, *, keep_sign: bool = False, cutoff: float = 1e-10) -> Tensor:
    r"""Weights of IMTL-G in Gramian form: :math:`v = D^{-1} C^+ \mathbf 1`, made to sum to one.

    With :math:`D` the lengths of the rows and :math:`C` their cosines, :math:`J^\top v` has the
    projection one on every unit row where the rows are independent, and the nearest to it else.

    Args:
        gramian: (T, T) with a positive diagonal.
        keep_sign: divide by the sum of :math:`v` even if that is negative.
        cutoff: eigenvalues of the cosine matrix below so much of the largest count as zero.

    Returns:
        (T,) weights of sum one in the Gramian's type (minus one where the sum of :math:`v` is
        negative and its sign is not kept). Where ones are orthogonal to the range of :math:`C`, as
        for two opposite rows, the weights that cancel the rows, which is the limit for two tasks.
        Where :math:`v` sums to zero otherwise, its absolute values sum to one.
    """
    inner = to_numpy(gramian)
    lengths = np.sqrt(inner.diagonal())
    values, vectors = np.linalg.eigh(inner / (lengths * lengths[:, None]))
    kept = values > cutoff * values[-1]
    shares = vectors.sum(0)
    if float((shares[kept] ** 2).sum()) > 1e-12 * len(inner):
        solution = vectors[:, kept] @ (shares[kept] / values[kept])
    else:
        solution = vectors[:, ~kept] @ shares[~kept]
    solution = solution / (lengths / lengths.min())
    total = float(solution.sum())
    size = float(np.abs(solution).sum())
    if abs(total) <= 1e-10 * size:
        total = size
    weights = solution / (total if keep_sign else abs(total))
    return torch.from_numpy(weights).to(gramian.dtype)


class IMTLG(GradientBalancer):
    r"""Makes the update's projections on all unit gradients equal.

    Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, sec. 3.1. See `imtlg_weights`;
    for two tasks :math:`w = (\lVert g_2 \rVert, \lVert g_1 \rVert) / (\lVert g_1 \rVert + \lVert
    g_2 \rVert)`. The direction does not depend on the scale of any loss.

    Fragile: weights may be negative, and explode where rows are nearly dependent. The published
    normalisation to a sum of one even turns the update around where the weights sum to less than
    zero, so that it makes *every* loss grow; by default the sign is not divided out, which changes
    nothing elsewhere. LibMTL raises on dependent rows and returns NaN for a zero one.

    Degree one in the scale of the gradients. Decoders are not weighted, as published.

    Args:
        sign: ``descend`` divides by the absolute sum; ``paper`` by the sum.
        clamp_negative: replace negative weights by zero and bring the rest back to a sum of one.
            The projections are then no longer equal.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Liu et al., ICLR 2021"

    def __init__(
        self,
        *,
        sign: Literal["descend", "paper"] = "descend",
        clamp_negative: bool = False,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(stages=stages, seed=seed)
        if sign not in ("descend", "paper"):
            raise UnknownNameError("sign", sign, ("descend", "paper"))
        self.sign = sign
        self.clamp_negative = clamp_negative

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights of equal projections."""
        weights = imtlg_weights(gramian, keep_sign=self.sign == "paper")
        if self.clamp_negative:
            weights = weights.clamp_min(0)
            weights = weights / weights.sum()
        return weights

    def gain(self, tasks: int) -> float:
        """The weights sum to one."""
        return 1.0
