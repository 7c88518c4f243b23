"""Descent on a primary task within constraints of the others."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.solvers import nonnegative_quadratic
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError, UnknownNameError

_FEASIBLE = 1e-6
_STATIONARY = 1e-10


def pcd_weights(gramian: Tensor, scales: Tensor, progress: Tensor, primary: int) -> Tensor:
    r"""Weights of priority-constrained descent.

    With scaled rows :math:`\tilde g_t = s_t g_t` and primary task p: :math:`\min_x \tfrac12 \|x -
    \tilde g_p\|^2` subject to :math:`\langle \tilde g_j, x \rangle \ge \tau_j \|\tilde g_j\|^2`,
    then x is brought to the length of :math:`g_p`. Solved in the multipliers,
    :math:`x = \tilde g_p + \sum_j \mu_j \tilde g_j`.

    Args:
        gramian: (T, T) float64, of a positive diagonal.
        scales: :math:`s`, (T,) positive.
        progress: :math:`\tau`, (T,) in [0, 1]; the primary task's own is not used.
        primary: p.

    Returns:
        (T,) weights: one for the primary task alone where no x meets all constraints or where it
        would make the primary task worse; zero where x is.
    """
    size = len(gramian)
    alone = torch.zeros(size, dtype=gramian.dtype)
    alone[primary] = 1.0
    others = [t for t in range(size) if t != primary]
    if not others:
        return alone
    inner = gramian * torch.outer(scales, scales)
    lengths = inner.diagonal().sqrt()
    # In units of the secondary rows' lengths and of the primary row's.
    products = inner[others][:, others] / torch.outer(lengths[others], lengths[others])
    base = inner[others, primary] / lengths[others] / lengths[primary]
    least = progress[others] * lengths[others] / lengths[primary]
    multipliers = nonnegative_quadratic(products, least - base)
    slack = products @ multipliers + base - least
    if bool((slack < -_FEASIBLE * (1 + least)).any()):
        return alone
    units = torch.zeros(size, dtype=gramian.dtype)
    units[primary] = 1.0
    units[others] = multipliers
    cosines = inner / torch.outer(lengths, lengths)
    square = units @ cosines @ units
    if float(square) <= _STATIONARY * float(units.sum().square()):
        return torch.zeros_like(alone)
    if float(cosines[primary] @ units) < 0:
        return alone
    true_lengths = gramian.diagonal().sqrt()
    return units / true_lengths * true_lengths[primary] / square.sqrt()


class PCD(GradientBalancer):
    r"""Follows a primary task as closely as a minimum of progress on all others allows.

    "Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical
    Multi-Objective Optimization", TMLR 2026. Every gradient is scaled by the inverse root of an
    average of its squared length; the update is the direction closest to the primary task's that
    gives each other task a fraction :math:`\tau` of the progress of a step along its own gradient
    (`pcd_weights`), brought to the length of the primary gradient. Where the constraints
    contradict each other the primary task is followed alone.

    The published rescaling can turn the step against the primary task (for :math:`g_2 = -g_1` it
    gives :math:`-g_1`, and TorchJD does so); here the primary task is followed alone wherever its
    loss would rise. Without a primary gradient in the batch the shared parameters stay where they
    are, as in the paper. The constant :math:`10^{-8}` beside the average of squares is left out: a
    task without gradient takes no part. Fragile: jumps where constraints become contradictory,
    and near opposition, where a tiny direction is blown up to full length.

    Degree one in the scale of the gradients; the scale of another task's loss does not matter once
    its average has followed. Decoders are not weighted. Tasks that agree give :math:`g_p` as
    published, times T with ``scale: sum``.

    Args:
        primary: name of the primary task; empty takes the first.
        tau: fraction in [0, 1], one for all other tasks or by name (0.02 where not named).
        beta: share of the former average in the new one, in [0, 1).
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "Priority-Constrained Descent, TMLR 2026"

    def __init__(
        self,
        *,
        primary: str = "",
        tau: float | Mapping[str, float] = 0.02,
        beta: float = 0.999,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(stages=Stages() if stages is None else stages, seed=seed)
        if not 0 <= beta < 1:
            raise ArgumentError("beta", "lie in [0, 1)", beta)
        self.primary = primary
        self.beta = beta
        self.tau = dict(tau) if isinstance(tau, Mapping) else {}
        self.common = 0.02 if isinstance(tau, Mapping) else tau
        for name, value in {"tau": self.common, **self.tau}.items():
            if not 0 <= value <= 1:
                argument = "tau" if name == "tau" else f"tau[{name!r}]"
                raise ArgumentError(argument, "lie in [0, 1]", value)
        self._average = torch.zeros(0, dtype=torch.float64)
        self._count = torch.zeros(0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Forget the averages; check that names are entries of this run."""
        for argument, name in [("primary", self.primary), *(("tau", name) for name in self.tau)]:
            if name and name not in self.entries:
                raise UnknownNameError(argument, name, self.entries)
        self._average = torch.zeros(entries, dtype=torch.float64)
        self._count = torch.zeros(entries, dtype=torch.float64)

    def gain(self, tasks: int) -> float:
        """One: the primary gradient."""
        return 1.0

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights of the constrained direction; the averages advance."""
        at = step.present
        squares = gramian.diagonal()
        self._average[at] = self.beta * self._average[at] + (1 - self.beta) * squares
        self._count[at] += 1
        scales = ((1 - self.beta ** self._count[at]) / self._average[at]).sqrt()
        primary = self.primary or self.entries[0]
        if primary not in step.entries:
            return torch.zeros_like(squares)
        progress = torch.tensor(
            [self.tau.get(e, self.common) for e in step.entries], dtype=torch.float64
        )
        return pcd_weights(gramian, scales, progress, step.entries.index(primary))

    def method_state(self) -> dict[str, Any]:
        """Averages and counts by entry."""
        return {"average": self._average, "count": self._count}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._average = state["average"].clone()
        self._count = state["count"].clone()
