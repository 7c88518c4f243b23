"""One router that sees the token and an embedding of the task."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.moe.router import GateNorm, Noise, TaskWindows, TokenRouter
from mtl_core.types import TaskName


class ConditionedRouter(TokenRouter):
    """Task-conditioned routing: logits of [token; embedding of the task].

    The second router of M³ViT (Liang et al., NeurIPS 2022, section 3.2): a one-hot task goes
    through two layers (T → d → d, ReLU between, as in the paper; the authors' code has GELU and a
    LayerNorm), and one matrix (E, D + d) reads it beside the token. A further task costs one column
    of the first layer. The part that depends on the task alone is added once, so a task's router is
    a linear layer with a bias. With an embedding of zeros it is `SingleRouter`.

    Shapes: x (B, ..., D) → `RouterOut` of (B, ..., K) and (B, ..., E).

    Args:
        tasks: names.
        dim: D.
        num_experts: E.
        top_k: K.
        d_task: d, width of the embedding.
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
        d_task: int = 64,
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
        if d_task < 1:
            raise ArgumentError("d_task", "be at least 1", d_task)
        self.embedding = nn.Linear(len(self.tasks), d_task)
        self.hidden = nn.Linear(d_task, d_task)
        self.linear = nn.Linear(dim, num_experts, bias=False)
        self.task_linear = nn.Linear(d_task, num_experts, bias=False)
        # Both are parts of one matrix over D + d inputs.
        bound = (dim + d_task) ** -0.5
        for part in (self.linear, self.task_linear):
            nn.init.uniform_(part.weight, -bound, bound)

    def embed(self) -> Tensor:
        """Embeddings (T, d) of all tasks."""
        first = self.embedding.weight.float().t() + self.embedding.bias.float()
        return F.linear(first.relu(), self.hidden.weight.float(), self.hidden.bias.float())

    def columns(self) -> list[nn.Linear]:
        """Both parts of the matrix."""
        return [*super().columns(), self.linear, self.task_linear]

    def logits(self, x: Tensor, task: TaskName | Tensor) -> Tensor:
        """Those of the token plus those of the task."""
        by_task = F.linear(self.embed(), self.task_linear.weight.float())
        own = by_task[self.index(task)] if isinstance(task, str) else by_task[task]
        if isinstance(task, Tensor):
            own = own.view(len(own), *[1] * (x.ndim - 2), self.num_experts)
        return F.linear(x, self.linear.weight.float()) + own
