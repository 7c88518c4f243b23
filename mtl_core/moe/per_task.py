"""Routers that see a token: one for each task, or one for all of them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.moe.router import GateNorm, Noise, TaskWindows, TokenRouter
from mtl_core.types import TaskName


class PerTaskRouter(TokenRouter):
    """A matrix (E, D) of its own for every task, experts shared.

    The multi-gate router of M³ViT (Liang et al., NeurIPS 2022, section 3.2): T·D·E parameters,
    switching the task changes nothing else.

    Shapes: x (B, ..., D) → `RouterOut` of (B, ..., K) and (B, ..., E).

    Args:
        tasks: names.
        dim: D.
        num_experts: E.
        top_k: K.
        norm: see `TokenRouter`.
        noise: see `TokenRouter`; the learned scale is shared by the tasks.
        noise_std: see `TokenRouter`.
        task_windows: see `TokenRouter`.

    Example:
        >>> router = PerTaskRouter(("semseg", "depth"), 8, num_experts=4, top_k=2)
        >>> router(torch.rand(3, 5, 8), "depth").idx.shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        tasks: Sequence[TaskName],
        dim: int,
        num_experts: int,
        top_k: int,
        *,
        norm: GateNorm = "none",
        noise: Noise = "none",
        noise_std: float = 1.0,
        task_windows: TaskWindows | None = None,
    ) -> None:
        super().__init__(
            tasks,
            dim,
            num_experts,
            top_k,
            norm=norm,
            noise=noise,
            noise_std=noise_std,
            task_windows=task_windows,
        )
        self.gates = nn.ModuleDict(
            {name: nn.Linear(dim, num_experts, bias=False) for name in self.tasks}
        )

    def gate(self, task: TaskName) -> nn.Module:
        """What serves only this task."""
        self.index(task)
        return self.gates[task]

    def columns(self) -> list[nn.Linear]:
        """Every task's matrix."""
        own = [gate for gate in self.gates.values() if isinstance(gate, nn.Linear)]
        return [*super().columns(), *own]

    def logits(self, x: Tensor, task: TaskName | Tensor) -> Tensor:
        """One matrix for all tokens, or one a sample."""
        if isinstance(task, str):
            return F.linear(x, self._weight(task))
        every = torch.stack([self._weight(name) for name in self.tasks])
        flat = x.flatten(1, -2) if x.ndim > 2 else x.unsqueeze(1)
        found = torch.bmm(flat, every[task].transpose(1, 2))
        return found.view(*x.shape[:-1], self.num_experts)

    def _weight(self, task: TaskName) -> Tensor:
        weight = self.gates[self.tasks[self.index(task)]].weight
        assert isinstance(weight, Tensor)
        return weight.float()


class SingleRouter(TokenRouter):
    """One matrix (E, D) for all tasks: the ablation of M³ViT, routing by content alone.

    Shapes: x (B, ..., D) → `RouterOut` of (B, ..., K) and (B, ..., E).

    Args:
        tasks: names; they only have to exist.
        dim: D.
        num_experts: E.
        top_k: K.
        norm: see `TokenRouter`.
        noise: see `TokenRouter`.
        noise_std: see `TokenRouter`.
        task_windows: see `TokenRouter`.
    """

    def __init__(
        self,
        tasks: Sequence[TaskName],
        dim: int,
        num_experts: int,
        top_k: int,
        *,
        norm: GateNorm = "none",
        noise: Noise = "none",
        noise_std: float = 1.0,
        task_windows: TaskWindows | None = None,
    ) -> None:
        super().__init__(
            tasks,
            dim,
            num_experts,
            top_k,
            norm=norm,
            noise=noise,
            noise_std=noise_std,
            task_windows=task_windows,
        )
        self.linear = nn.Linear(dim, num_experts, bias=False)

    def columns(self) -> list[nn.Linear]:
        """The matrix."""
        return [*super().columns(), self.linear]

    def logits(self, x: Tensor, task: TaskName | Tensor) -> Tensor:
        """The same for all tasks."""
        if isinstance(task, str):
            self.index(task)
        return F.linear(x, self.linear.weight.float())
