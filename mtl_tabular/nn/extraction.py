"""Levels of task-specific and shared experts, the trunk of PLE and STEM."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.nn import Features
from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_tabular.nn.experts import Experts, Gate, GatedTower

TowerInput = Literal["both", "task"]
"""Whether a tower reads its task's mixture and the shared one, or its task's alone."""


def shared_output(tower_input: TowerInput) -> bool:
    """Whether the last level needs a shared gate.

    Raises:
        UnknownNameError: `tower_input` is neither ``both`` nor ``task``.
    """
    if tower_input not in get_args(TowerInput):
        raise UnknownNameError("tower_input", tower_input, get_args(TowerInput))
    return tower_input == "both"


class ExpertLevel(nn.Module):
    """M experts per task and S shared ones.

    Shapes: (B, 1, D) where all read the same, or (B, T + 1, D) with an input per task and one for
    the shared experts → (B, T·M + S, D'), the tasks' experts in their order, then the shared ones.

    Args:
        tasks: T.
        widths: of the input and of every layer of an expert.
        task_experts: M.
        shared_experts: S.
        dropout: see `Experts`.
        init_std: likewise.
    """

    def __init__(
        self,
        tasks: int,
        widths: Sequence[int],
        task_experts: int,
        shared_experts: int,
        dropout: float,
        init_std: float | None,
    ) -> None:
        super().__init__()
        if min(task_experts, shared_experts) < 0 or task_experts + shared_experts == 0:
            raise ArgumentError(
                "task_experts and shared_experts",
                "be at least 0, and not both 0",
                (task_experts, shared_experts),
            )
        count = tasks * task_experts
        self.own = Experts(count, widths, dropout, init_std=init_std) if count else None
        self.common = (
            Experts(shared_experts, widths, dropout, init_std=init_std) if shared_experts else None
        )

    def forward(self, streams: Tensor) -> Tensor:
        """Outputs of all experts."""
        apart = streams.shape[1] > 1
        found = []
        if self.own is not None:
            found.append(self.own(streams[:, :-1] if apart else streams))
        if self.common is not None:
            found.append(self.common(streams[:, -1:]))
        return torch.cat(found, 1)


class Extractor(nn.Module):
    """L levels of experts, with gates between them.

    Between levels every task's gate mixes the experts it sees into the input of its experts on the
    next level; a shared gate mixes all experts into the input of the shared ones. The last level's
    task gates are the tasks' own and stand outside, in `build_heads`; they read `select`.

    Shapes: (B, 1, D) or (B, T + 1, D) → `Features` whose maps are the last level's expert outputs
    (B, (T·M + S)·D'), the inputs of that level flattened, and, with `shared_output`, the shared
    mixture (B, D').

    Args:
        tasks: T.
        width: D.
        expert: widths of an expert's layers, the last one is D'.
        task_experts: M.
        shared_experts: S.
        levels: L.
        dropout: see `Experts`.
        sees: whether a task's gate sees its ``own`` and the shared experts, or ``all``. Of all, it
            sends no gradient to those of other tasks.
        detach_shared: with ``all``, send none to the shared experts either.
        shared_output: whether the last level has a shared gate too.
        init_std: see `Experts`.

    Raises:
        ArgumentError: a count or a width is not positive, or there is no expert at all.
        UnknownNameError: `sees` is neither ``own`` nor ``all``.
    """

    def __init__(
        self,
        tasks: int,
        width: int,
        *,
        expert: Sequence[int],
        task_experts: int,
        shared_experts: int,
        levels: int = 1,
        dropout: float = 0.0,
        sees: Literal["own", "all"] = "own",
        detach_shared: bool = False,
        shared_output: bool = True,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ArgumentError("levels", "be at least 1", levels)
        if sees not in ("own", "all"):
            raise UnknownNameError("sees", sees, ("own", "all"))
        if shared_experts == 0 and not shared_output and (levels > 1 or sees == "all"):
            rule = "be positive where towers read only their task's mixture (else use PerTask)"
            raise ArgumentError("shared_experts", rule, shared_experts)
        self.tasks = tasks
        self.task_experts = task_experts
        self.sees = sees
        self.detach_shared = detach_shared
        total = tasks * task_experts + shared_experts
        self.seen = total if sees == "all" else task_experts + shared_experts
        inputs = [width, *[expert[-1]] * (levels - 1)]
        self.levels = nn.ModuleList(
            ExpertLevel(tasks, (i, *expert), task_experts, shared_experts, dropout, init_std)
            for i in inputs
        )
        self.gates = nn.ModuleList(
            nn.ModuleList(Gate(i, self.seen) for _ in range(tasks)) for i in inputs[:-1]
        )
        self.shared_gates = nn.ModuleList(
            Gate(i, total) for i in (inputs if shared_output else inputs[:-1])
        )
        self.stream_width = inputs[-1]
        self.expert_width = expert[-1]
        self.shared_output = shared_output

    def forward(self, streams: Tensor) -> Features:
        """What towers and last gates read."""
        outputs = streams
        for i, level in enumerate(self.levels):
            if i:
                streams = self._mix(i - 1, streams, outputs)
            outputs = level(streams)
        maps = [outputs.flatten(1), streams.flatten(1)]
        if self.shared_output:
            maps.append(self.shared_gates[-1](streams[:, -1], outputs))
        return Features(maps)

    def _mix(self, level: int, streams: Tensor, outputs: Tensor) -> Tensor:
        """Inputs (B, T + 1, D') of the next level."""
        last = streams.shape[1] - 1
        gates = self.gates[level]
        assert isinstance(gates, nn.ModuleList)
        mixed = [
            gate(streams[:, min(task, last)], self._visible(outputs, task))
            for task, gate in enumerate(gates)
        ]
        mixed.append(self.shared_gates[level](streams[:, last], outputs))
        return torch.stack(mixed, 1)

    def build_heads(
        self, tasks: Mapping[TaskName, Task], tower: Sequence[int], dropout: float
    ) -> nn.ModuleDict:
        """A gate on the last level and a tower for every task.

        Args:
            tasks: as many as the extractor serves.
            tower: widths of a tower's hidden layers.
            dropout: of the towers.
        """
        mixed = self.expert_width * (2 if self.shared_output else 1)
        return nn.ModuleDict(
            {
                name: GatedTower(
                    self.stream_width, self.seen, mixed, tower, task.out_channels, dropout
                )
                for name, task in tasks.items()
            }
        )

    def select(self, features: Features, task: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the `GatedTower` of the task with this index reads of the extractor's features."""
        outputs, streams, *shared = features.maps
        streams = streams.unflatten(1, (-1, self.stream_width))
        stream = streams[:, min(task, streams.shape[1] - 1)]
        return stream, self._visible(outputs.unflatten(1, (-1, self.expert_width)), task), shared

    def _visible(self, outputs: Tensor, task: int) -> Tensor:
        start, border = task * self.task_experts, self.tasks * self.task_experts
        own = outputs[:, start : start + self.task_experts]
        shared = outputs[:, border:]
        if self.sees == "own":
            return torch.cat([own, shared], 1)
        before = outputs[:, :start].detach()
        after = outputs[:, start + self.task_experts : border].detach()
        shared = shared.detach() if self.detach_shared else shared
        return torch.cat([before, own, after, shared], 1)
