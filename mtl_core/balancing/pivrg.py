"""Fair gains, more of them for tasks that lag behind in validation."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.losses import Step
from mtl_core.balancing.newton import power_equilibrium
from mtl_core.balancing.solvers import is_stationary, to_numpy
from mtl_core.balancing.stages import Stages
from mtl_core.baselines import References
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.metrics.delta_m import relative_gain
from mtl_core.metrics.logged import logged_scores


def priorities(deficits: Tensor, *, bound: float, least_temperature: float) -> Tensor:
    r"""How much a task counts, by its deficit: :math:`n \cdot \mathrm{softmax}(x / \tau)`.

    :math:`\tau = \max((\max x - \min x) / \log b, \tau_0)`, so that no two differ by more than the
    factor b.

    Args:
        deficits: (T,) in percent, larger for worse tasks; NaN where unknown.
        bound: :math:`b`, above 1.
        least_temperature: :math:`\tau_0`, in percent.

    Returns:
        (T,) of mean one; one where the deficit is unknown.
    """
    known = ~deficits.isnan()
    found = torch.ones_like(deficits)
    if bool(known.any()):
        x = deficits[known]
        temperature = max(float(x.max() - x.min()) / math.log(bound), least_temperature)
        found[known] = len(x) * torch.softmax(x / temperature, 0)
    return found


class PIVRG(GradientBalancer):
    r"""FairGrad with alpha 2 and priorities from validation.

    With :math:`v` the `priorities` of the tasks,

    .. math:: (Gw)_t = \sqrt{v_t / w_t}, \qquad d = J^\top w .

    Known here from the authors' code only (jianke0604/NTKMTL, methods/weight_methods.py, class
    PIVRG); where its scores come from is not in that file. The scores here are deficits in percent,
    the negative terms of Δm:

    - ``validation``: read at the end of every validation from the logged ``val/TASK/METRIC`` of
      each task's primary metric (``val/TASK/GROUP/METRIC`` for groups where logged). Against
      single-task `references` if given, else against the run's own first validation, so that tasks
      that gained least count most. Until then, and for tasks without value, priorities are one.
    - ``losses``: growth of the loss of this update over the task's first one, for runs without
      validation. Noisy.
    - In a hand-written loop: `observe`.

    Degree -1/3 in the scale of the gradients, as `FairGrad`, which says what is fragile; with equal
    deficits it is `FairGrad` with alpha 2. The authors' code multiplies the update by T and clips
    it to length one (``Stages(norm="max")``). Decoders are not weighted.

    Args:
        scores: where deficits come from.
        references: file of single-task scores, as ``record`` writes it or by hand; None compares
            with the first validation. Goes with ``scores: validation``.
        bound: largest ratio of two priorities, above 1.
        least_temperature: of the softmax, in percent, positive: deficits that differ by much less
            are treated alike.
        stages: options common to all methods of this family.
        seed: unused; every balancer has one.
    """

    source = "PIVRG, in jianke0604/NTKMTL (2025)"
    needs = "Gramian, validation scores"

    def __init__(
        self,
        *,
        scores: Literal["validation", "losses"] = "validation",
        references: str | None = None,
        bound: float = 2.0,
        least_temperature: float = 10.0,
        stages: Stages | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(stages=stages, seed=seed)
        if scores not in ("validation", "losses"):
            raise UnknownNameError("scores", scores, ("validation", "losses"))
        if references is not None and scores != "validation":
            raise ArgumentError("references", "go with scores: validation", references)
        if not (bound > 1 and math.isfinite(bound)):
            raise ArgumentError("bound", "be finite and above 1", bound)
        if not least_temperature > 0:
            raise ArgumentError("least_temperature", "be positive", least_temperature)
        self.scores = scores
        self.references = references
        self.bound = bound
        self.least_temperature = least_temperature
        self._known = None if references is None else References.load(references)
        self._unknown(0)

    def _unknown(self, entries: int) -> None:
        self.deficits = torch.full((entries,), torch.nan, dtype=torch.float64)
        self.first = torch.full((entries,), torch.nan, dtype=torch.float64)

    def reset(self, entries: int) -> None:
        """Nothing is known about any entry."""
        self._unknown(entries)

    def check(self, trainer: L.Trainer, module: L.LightningModule) -> Balanceable:
        """Refuse modules without task records, whose metrics have no direction."""
        checked = super().check(trainer, module)
        tasks = getattr(module, "tasks", None)
        if self.scores == "validation" and not isinstance(tasks, Mapping):
            raise BalancerError(
                "PIVRG reads the primary metrics of the module's tasks, but "
                f"{type(module).__name__} has no mapping 'tasks'. Use scores: losses."
            )
        if self._known is not None and isinstance(tasks, Mapping):
            self._known.check(tasks)
        return checked

    def observe(self, deficits: Mapping[str, float]) -> None:
        """Take new deficits in percent by entry; the others keep theirs."""
        for entry, value in deficits.items():
            if entry not in self.entries:
                raise UnknownNameError("entry", entry, self.entries)
            self.deficits[self.entries.index(entry)] = value
        for member in self._members.values():
            member.deficits = self.deficits.clone()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read what validation logged."""
        if self.scores != "validation" or trainer.sanity_checking or not self.entries:
            return
        tasks: Any = pl_module.tasks
        logged = logged_scores(trainer.callback_metrics, "val", tasks)
        found = {}
        for i, entry in enumerate(self.entries):
            name, _, group = entry.partition("/")
            held, primary = logged.get(name, {}), tasks[name].primary
            value = held.get(f"{group}/{primary}" if group else primary, held.get(primary))
            if value is None or not math.isfinite(value):
                continue
            reference = self._reference(i, name, primary, value)
            if reference != 0:
                higher = tasks[name].higher_is_better()[primary]
                found[entry] = -relative_gain(value, reference, higher_is_better=higher)
        self.observe(found)

    def _reference(self, index: int, task: str, metric: str, value: float) -> float:
        if self._known is not None:
            return self._known.scores["val"][task][metric]
        if self.first[index].isnan() and value != 0:
            self.first[index] = value
        return float(self.first[index].nan_to_num())

    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Fair weights under the priorities."""
        at = step.present
        deficits = self.deficits[at]
        if self.scores == "losses":
            first = torch.where(self.first[at].isnan() & (losses != 0), losses, self.first[at])
            self.first[at] = first
            deficits = 100 * (losses - first) / first.abs()
        priority = priorities(deficits, bound=self.bound, least_temperature=self.least_temperature)
        inner = to_numpy(gramian)
        weights, _ = power_equilibrium(inner, exponent=0.5, coefficients=to_numpy(priority.sqrt()))
        self.report["stationary"] = float(is_stationary(inner, weights, tolerance=1e-6))
        return torch.from_numpy(weights)

    def gain(self, tasks: int) -> None:
        """It depends on the length of the rows."""

    def method_state(self) -> dict[str, Any]:
        """Deficits, and what they are measured from."""
        return {"deficits": self.deficits, "first": self.first}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.deficits = state["deficits"].clone()
        self.first = state["first"].clone()
