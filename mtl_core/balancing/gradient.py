"""Methods that need only the inner products of the tasks' gradients."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.rows import combine, gramian
from mtl_core.balancing.rowwise import RowBalancer
from mtl_core.balancing.stages import Pipeline, Stages
from mtl_core.metrics.conflict import summary


class GradientBalancer(RowBalancer):
    """Turns the T×T Gramian of the rows into T weights.

    A method writes `weigh`, a rule that never sees a model: its mathematics is a function of a
    small float64 matrix, tested as such. What surrounds the rule are `Stages`.

    Args:
        stages: options common to all methods of this family.
        seed: of the method's random numbers.
    """

    needs = "Gramian"
    walks = "T"

    def __init__(self, *, stages: Stages | None = None, seed: int = 0) -> None:
        self.stages = Stages() if stages is None else stages
        super().__init__(weight_decoders=self.stages.weight_decoders, seed=seed)
        self._pipeline = Pipeline(self.stages, 0)
        self._members: dict[str, Self] = {}

    @abstractmethod
    def weigh(self, gramian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Weights (T,) of the rows, as published.

        Args:
            gramian: (T, T) float64 on the CPU, of unscaled gradients, finite. Rows of zeros (a task
                without gradient) were removed: every diagonal entry is positive.
            losses: (T,) float64.
            step: the update; its entries are those of the Gramian.
        """

    def gain(self, tasks: int) -> float | None:
        """Sum of the weights that `weigh` gives T equal rows.

        It decides what the method does to the learning rate; with ``scale: sum`` the weights are
        multiplied by T over it. None where it depends on the length of the rows. Default: T.
        """
        return float(tasks)

    def solve(self, gramian: Tensor, losses: Tensor | None = None) -> Tensor:
        """Weights of T rows from a plain Gramian, without any module; stateful methods advance.

        Args:
            gramian: (T, T) of any floating type, symmetric.
            losses: (T,), where a stage or the method asks for them; default ones.

        Returns:
            (T,) float64 weights: the update is the rows' weighted sum. NaN, and no state moves,
            where the Gramian is not finite.
        """
        wide = gramian.detach().double().cpu()
        step = self._plain_step(len(wide))
        known = torch.ones(len(wide)) if losses is None else losses.detach()
        if not bool(torch.isfinite(wide).all()):
            return torch.full((len(wide),), torch.nan, dtype=torch.float64)
        weights, factor = self._solve(wide, known.double().cpu(), step)
        self.index += 1
        return weights * factor

    def update(self, rows: Tensor, losses: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Weighted sum of the rows. A zero row gets weight one, which changes nothing."""
        scale = self.loss_scale() ** 2
        if self.stages.group == "whole":
            inner = gramian(rows) / scale
            weights, factor = self._solve(inner, losses, step)
            self._summarise(inner)
            return combine(rows, weights * factor), weights
        direction = torch.empty_like(rows[0])
        total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        for name, start, stop in self._spans():
            part = rows[:, start:stop]
            inner = gramian(part) / scale
            weights, factor = self._member(name)._solve(inner, losses, step)
            direction[start:stop] = combine(part, weights * factor)
            total += inner
        self._summarise(total)
        return direction, None

    def _summarise(self, inner: Tensor) -> None:
        alive = inner.diagonal() > 0
        self.report.update(summary(inner[alive][:, alive]))

    def _solve(self, inner: Tensor, losses: Tensor, step: Step) -> tuple[Tensor, float]:
        """Weights (T,) and the factor of the trunk's update, for a finite Gramian."""
        alive = inner.diagonal() > 0
        weights = torch.ones(len(inner), dtype=torch.float64)
        if not bool(alive.any()):
            return weights, 1.0
        names = tuple(e for e, keep in zip(step.entries, alive.tolist(), strict=True) if keep)
        part = replace(step, entries=names, present=step.present[alive])
        weights[alive], factor = self._pipeline.solve(
            self, inner[alive][:, alive], losses[alive], part
        )
        return weights, factor

    def _spans(self) -> Iterator[tuple[str, int, int]]:
        """Name, first and last column of every group."""
        names: Sequence[str] = self.column_names()
        start, stop = 0, 0
        for i, (name, size) in enumerate(zip(names, self.column_sizes(), strict=True)):
            stop += size
            group = name if self.stages.group == "matrix" else name.rpartition(".")[0]
            last = i == len(names) - 1
            if last or self.stages.group == "matrix" or names[i + 1].rpartition(".")[0] != group:
                yield group, start, stop
                start = stop

    def _member(self, group: str) -> Self:
        """The copy of this method that keeps a group's state."""
        if group not in self._members:
            member = copy.copy(self)
            member._members = {}
            member.prepare(len(self.entries))
            member.reset(len(self.entries))
            self._members[group] = member
        return self._members[group]

    def prepare(self, entries: int) -> None:
        """Fresh state of the stages."""
        super().prepare(entries)
        self._pipeline = Pipeline(self.stages, entries)
        self._members = {}

    def family_state(self) -> dict[str, Any]:
        """The stages' state, and that of every group."""
        members = {
            name: {"method": member.method_state(), "stages": member._pipeline.state()}
            for name, member in self._members.items()
        }
        return super().family_state() | {"stages": self._pipeline.state(), "groups": members}

    def load_family_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        super().load_family_state(state)
        self._pipeline.load(state["stages"])
        self._members = {}
        for name, kept in state["groups"].items():
            member = self._member(name)
            member.load_method_state(kept["method"])
            member._pipeline.load(kept["stages"])
