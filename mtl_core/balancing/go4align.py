"""Group-wise weights from risk."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.stages import require_positive
from mtl_core.errors import ArgumentError


def cluster_means(values: Tensor, groups: int) -> Tensor:
    """Replace every number by the mean of its cluster.

    k-means of numbers on a line is solved exactly: clusters are runs of the sorted numbers, and
    dynamic programming finds the runs of least squared error (Wang and Song 2011). So the result
    neither depends on a start nor on the order of the tasks.

    Args:
        values: (T,) finite.
        groups: clusters, at least 1; no more than there are values.

    Example:
        >>> import torch
        >>> cluster_means(torch.tensor([1.0, 5.0, 2.0]), 2).tolist()
        [1.5, 5.0, 1.5]
    """
    order = np.argsort(values.numpy(), kind="stable")
    ordered = values.numpy()[order].astype(np.float64)
    size = len(ordered)
    centred = ordered - ordered.mean()
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    count = np.arange(size + 1)[None, :] - np.arange(size + 1)[:, None]
    spread = (sums[None, :] - sums[:, None]) ** 2 / np.maximum(count, 1)
    cost = np.where(count > 0, (squares[None, :] - squares[:, None]) - spread, np.inf)
    best = np.where(np.arange(size + 1) == 0, 0.0, np.inf)
    cuts = []
    for _ in range(min(groups, size)):
        through = best[:, None] + cost
        cuts.append(through.argmin(0))
        best = through.min(0)
    found, stop = np.empty(size), size
    for cut in reversed(cuts):
        start = int(cut[stop])
        found[order[start:stop]] = ordered[start:stop].mean()
        stop = start
    return torch.from_numpy(found).to(values.dtype)


class GO4Align(LossBalancer):
    r"""Groups tasks by risk and gives every group one weight.

    Shen et al., "GO4Align: Group Optimization for Multi-Task Alignment", NeurIPS 2024. Minimises
    :math:`\sum_t w_t \ell_t` with constants found in two steps: risk
    :math:`p \propto p \, e^{-\eta \ell}` (kept over the run, uniform at first), made comparable as
    :math:`v_t = p_t \sum_s \ell_s / \ell_t`; then :math:`w_t` is the mean of :math:`v` in t's
    cluster under k-means with K clusters. For one cluster it is one common weight, for T of them
    :math:`w = v`. Equal losses have weights of one at the start.

    Fragile over long runs: :math:`p` keeps drifting to the tasks of small losses, at a speed that
    depends on the losses' units. Losses have to be positive. The released code
    (autumn9999/GO4Align) clusters with Lloyd's iterations from a random start; here the optimal
    clusters are found exactly, so a run can be repeated. Its SDP and spectral variants are not
    offered. LibMTL and TorchJD do not have it.

    Args:
        groups: K, at least 1.
        eta: step size of the risk, not negative.
        seed: unused; every balancer has one.
    """

    source = "Shen et al., NeurIPS 2024"

    def __init__(self, *, groups: int = 2, eta: float = 1e-4, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if not groups >= 1:
            raise ArgumentError("groups", "be at least 1", groups)
        if not 0 <= eta < float("inf"):
            raise ArgumentError("eta", "be finite and not negative", eta)
        self.groups = groups
        self.eta = eta
        self.log_risk = torch.zeros(0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Uniform risk."""
        self.log_risk = torch.zeros(entries, dtype=torch.float64)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Cluster means (T,) of the risk after this step."""
        require_positive(losses, step, "weights inverse to the losses")
        risk = torch.softmax(self.log_risk[step.present] - self.eta * losses, 0)
        return cluster_means(risk * (losses.sum() / losses), self.groups)

    def advance(self, losses: Tensor, step: Step) -> None:
        """Move the risk of the entries present; their share of the whole stays."""
        at = step.present
        before = self.log_risk[at]
        moved = before - self.eta * losses
        self.log_risk[at] = moved - moved.logsumexp(0) + before.logsumexp(0)

    def method_state(self) -> dict[str, Any]:
        """The logarithm of the risk."""
        return {"log_risk": self.log_risk}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.log_risk = state["log_risk"].clone()
