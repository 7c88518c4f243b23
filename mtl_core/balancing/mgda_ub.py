"""Multiple-gradient descent at the features."""

from typing import Literal

import torch
from torch import Tensor

from mtl_core.balancing.feature import FeatureBalancer, Merged
from mtl_core.balancing.losses import Step
from mtl_core.balancing.rows import combine
from mtl_core.balancing.solvers import min_norm_point


class MGDAUB(FeatureBalancer):
    r"""Minimum-norm combination of the gradients of the features.

    Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, sec. 3.3:
    the norm of the combined feature gradient bounds the norm of the combined parameter gradient, so
    the trunk is walked once instead of T times. Gradients are compared over samples times features;
    LibMTL's ``rep_grad`` sums over samples first, which is another quantity. Weights lie on the
    simplex and reach the decoders, as published.

    Args:
        scale: ``sum`` multiplies the weights by T, so that the step agrees with the plain sum of
            the losses where all tasks agree; ``paper`` leaves them.
        normalise: compare gradients of unit length (``l2``), the paper's remedy against its bias to
            tasks with small gradients, or as they are (``none``).
        weight_decoders: multiply decoder gradients by the weights.
        seed: unused; every balancer has one.
    """

    def __init__(
        self,
        *,
        scale: Literal["sum", "paper"] = "sum",
        normalise: Literal["none", "l2"] = "none",
        weight_decoders: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(weight_decoders=weight_decoders, seed=seed)
        self.scale = scale
        self.normalise = normalise

    def merge(self, rows: Tensor, losses: Tensor, step: Step) -> Merged:
        """The shortest convex combination; tasks without gradient are left out of it."""
        inner = self.inner(rows)
        alive = inner.diagonal() > 0
        weights = torch.ones(len(step.entries), dtype=torch.float64)
        if bool(alive.any()):
            kept = inner[alive][:, alive]
            lengths = kept.diagonal().sqrt() if self.normalise == "l2" else torch.ones(len(kept))
            solved = min_norm_point(kept / torch.outer(lengths, lengths)) / lengths
            if self.normalise == "l2":
                solved = solved * lengths.mean()
            weights[alive] = solved * (len(kept) if self.scale == "sum" else 1)
        return Merged(combine(rows, weights), weights)
