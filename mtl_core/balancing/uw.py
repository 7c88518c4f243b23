"""Uncertainty weighting."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtl_core.balancing.by_name import ByName, check_choice
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.scalars import LearnedScalars
from mtl_core.errors import ArgumentError


class UW(LossBalancer):
    r"""Homoscedastic uncertainty as learned weights.

    Kendall, Gal and Cipolla, CVPR 2018, eq. 7 and 10.

    With :math:`s_t = \log \sigma_t^2` the objective is
    :math:`\sum_t \tfrac12 e^{-s_t} \ell_t + \tfrac12 s_t`; its minimum over :math:`s_t` is at
    :math:`s_t = \log \ell_t`. LibMTL and TorchJD use the factor one half for every task (``form:
    half``). The paper derives :math:`e^{-s_t} \ell_t + \tfrac12 s_t` for classification (``form:
    paper``), with the minimum at :math:`s_t = \log 2 \ell_t`: at the optimum both weigh a task by
    :math:`1 / (2 \ell_t)`, only the way there differs.

    The :math:`s_t` are learned here by Adam without weight decay, outside the model's optimiser, so
    neither its learning rate nor gradient clipping touches them. Absent tasks keep theirs. Weights
    are one half at the start (one for classification in the paper's form), whatever the losses.
    Known weakness: a bad start is recovered from slowly, and easy tasks are over-weighted late
    (Kirchdorfer et al., GCPR 2024; `UWSO` is their remedy).

    Args:
        lr: learning rate of the :math:`s_t`, positive.
        init: their start, in log units of the loss; 0 in TorchJD, -0.5 in LibMTL.
        form: ``half`` or ``paper``.
        kinds: ``regression`` or ``classification`` by task, of every task; ``paper`` only.
        seed: unused; every balancer has one.
    """

    source = "Kendall et al., CVPR 2018"

    def __init__(
        self,
        *,
        lr: float = 0.025,
        init: float = 0.0,
        form: Literal["half", "paper"] = "half",
        kinds: Mapping[str, Literal["regression", "classification"]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if not lr > 0:
            raise ArgumentError("lr", "be positive", lr)
        if not abs(init) < float("inf"):
            raise ArgumentError("init", "be finite", init)
        check_choice("form", form, ("half", "paper"))
        for name, kind in (kinds or {}).items():
            check_choice(f"kinds[{name!r}]", kind, ("regression", "classification"))
        if kinds and form == "half":
            raise ArgumentError("kinds", "be empty with form: half", dict(kinds))
        self.lr = lr
        self.init = init
        self.form = form
        self.kinds: ByName[str] = ByName("kinds", kinds, "")
        self.scalars = LearnedScalars(0, lr=lr)

    def reset(self, entries: int) -> None:
        """Start all :math:`s_t` at `init`; check that the paper's form knows every task's kind."""
        self.kinds.check(self.entries)
        unknown = [e for e in self.entries if not self.kinds.value(e)]
        if self.form == "paper" and unknown:
            raise ArgumentError(
                "kinds",
                f"name every task with form: paper ({', '.join(unknown)} missing)",
                self.kinds.given,
            )
        self.scalars = LearnedScalars(entries, lr=self.lr, init=self.init)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """Precision of every task, (T,), or half of it."""
        kinds = [self.kinds.value(e) for e in step.entries]
        factors = [1.0 if kind == "classification" else 0.5 for kind in kinds]
        precisions = torch.exp(-self.scalars.values[step.present])
        return torch.tensor(factors, dtype=torch.float64) * precisions

    def advance(self, losses: Tensor, step: Step) -> None:
        """One step of the :math:`s_t` of the entries present."""
        self.scalars.step(0.5 - self.weigh(losses, step) * losses, step.present)

    def method_state(self) -> dict[str, Any]:
        """Log variances and the moments of their optimiser."""
        return self.scalars.state()

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.scalars.load(state)
