"""Auxiliary gradients brought to the size of a target task's."""

from typing import Any

import torch
from torch import Tensor

from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.stages import Stages
from mtl_core.errors import ArgumentError, UnknownNameError


class MetaBalance(GradientBalancer):
    r"""Brings every task's gradient, tensor by tensor, towards the length of a target task's.

    He et al., "MetaBalance: Improving Multi-Task Recommendations via Adapting Gradient Magnitudes
    of Auxiliary Tasks", WWW 2022, and their code: in every parameter tensor :math:`m_t \leftarrow
    \beta m_t + (1-\beta) \|g_t\|` and the weight is :math:`r\, m_1 / m_t + 1 - r`, task 1 being the
    target. With r = 0 this is the plain sum. Averages are corrected for their start at zero, which
    changes nothing where all tasks are always present and keeps the ratio right where not.

    Fragile: a tensor that the target does not touch has :math:`m_1 = 0` and gives all tasks
    weight 1 - r, as published; one whose auxiliary gradients are tiny weighs them without bound
    (``stages.clamp``). Degree one in the scale of the gradients, any scale. Decoders are not
    weighted. Neither LibMTL nor TorchJD has it.

    Args:
        target: name of the target task; empty takes the first.
        relax: r in [0, 1], how far lengths are adapted.
        beta: share of the former average in the new one, in [0, 1).
        stages: options common to all methods of this family; by default weights by tensor.
        seed: unused; every balancer has one.
    """

    source = "He et al., WWW 2022"
    needs = "norms"

    def __init__(
        self,
        *,
        target: str = "",
        relax: float = 0.7,
        beta: float = 0.9,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(stages=Stages(group="matrix") if stages is None else stages, seed=seed)
        if not 0 <= relax <= 1:
            raise ArgumentError("relax", "lie in [0, 1]", relax)
        if not 0 <= beta < 1:
            raise ArgumentError("beta", "lie in [0, 1)", beta)
        self.target = target
        self.relax = relax
        self.beta = beta
        self._average = torch.zeros(0, dtype=torch.float64)
        self._count = torch.zeros(0, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Forget the averages; check that the target is an entry of this run."""
        if self.target and self.target not in self.entries:
            raise UnknownNameError("target", self.target, self.entries)
        self._average = torch.zeros(entries, dtype=torch.float64)
        self._count = torch.zeros(entries, dtype=torch.float64)

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights by the ratio of averages, which advance."""
        at = step.present
        lengths = gramian.diagonal().sqrt()
        self._average[at] = self.beta * self._average[at] + (1 - self.beta) * lengths
        self._count[at] += 1
        known = self._average / (1 - self.beta**self._count).clamp_min(1e-300)
        target = self.entries.index(self.target) if self.target else 0
        return self.relax * known[target] / known[at] + (1 - self.relax)

    def method_state(self) -> dict[str, Any]:
        """Averages and counts by entry."""
        return {"average": self._average, "count": self._count}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._average = state["average"].clone()
        self._count = state["count"].clone()
