"""Who computes what: the contract of routers, and how experts are picked from logits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Self, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe.precision import full_precision
from mtl_core.types import TaskName

GateNorm: TypeAlias = Literal["none", "topk"]
Noise: TypeAlias = Literal["none", "vmoe", "shazeer"]

OUTSIDE = -1e9
"""Logit of an expert outside of a task's window; finite, so that gradients of zero stay zero."""

TaskWindows: TypeAlias = Mapping[TaskName, Sequence[int]]
"""Experts that a task may use, by task."""


class RouterOut(NamedTuple):
    """A routing of tokens (..., D), or of samples; float32 but for the indices.

    Args:
        idx: (..., K) int64, the experts of each token, best first.
        gate: (..., K) their weights, at least 0.
        probs: (..., E) softmax over all experts, of the logits that the choice was made from.
        logits: (..., E) without noise.
        noisy: (..., E) what the choice was made from; None where there was no noise.
        scale: (..., E) standard deviation of the noise; None where there was none.
        allowed: (..., E) bool, experts that the task may use at all; None: all.
    """

    idx: Tensor
    gate: Tensor
    probs: Tensor
    logits: Tensor
    noisy: Tensor | None = None
    scale: Tensor | None = None
    allowed: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The routing with a function applied to every tensor: a part of it, a flat one."""
        return type(self)(*(None if v is None else function(v) for v in self))  # type: ignore[arg-type]

    def chunk(self, count: int) -> list[Self]:
        """`count` equal parts along the first axis."""
        size = -(-len(self.idx) // count)
        return [self.map(lambda v, i=i: v[i * size : (i + 1) * size]) for i in range(count)]  # type: ignore[misc]


class Router(nn.Module, ABC):
    """Chooses K of E experts, given what is to be routed and the task it is for.

    Everything that watches routing (usage, pictures, costs) hooks into calls of routers, so all
    routing goes through them, and the task is an argument, never a state.

    Args:
        tasks: names of the tasks that it serves, in the order of their indices.
        num_experts: E.
        top_k: K.

    Raises:
        ArgumentError: K is not in 1..E, or there is no expert.
    """

    def __init__(self, tasks: Sequence[TaskName], num_experts: int, top_k: int) -> None:
        super().__init__()
        if num_experts < 1:
            raise ArgumentError("num_experts", "be at least 1", num_experts)
        if not 1 <= top_k <= num_experts:
            raise ArgumentError("top_k", f"be in 1..{num_experts}", top_k)
        self.tasks = tuple(tasks)
        self.num_experts = num_experts
        self.top_k = top_k

    @abstractmethod
    def forward(self, x: Tensor, task: TaskName | Tensor) -> RouterOut:
        """Route.

        Args:
            x: (B, ..., D) tokens, or what the router looks at instead.
            task: a name, or (B,) int64 indices into `tasks`.

        Raises:
            UnknownNameError: there is no such task.
        """

    def index(self, task: TaskName) -> int:
        """Position of a task among `tasks`."""
        if task not in self.tasks:
            raise UnknownNameError("task", task, self.tasks)
        return self.tasks.index(task)


class TokenRouter(Router):
    """Routes every token by logits of its own, in float32 whatever the precision around it.

    The choice is that of the K largest of ``softmax(logits)``. Their weights are those numbers
    (``norm: none``, M³ViT), which do not sum to 1, or those numbers over their sum (``topk``).
    While training, noise may be added to the logits: ``vmoe`` of standard deviation
    `noise_std` / E (Riquelme et al., NeurIPS 2021), ``shazeer`` of a learned one for every token
    and expert, softplus(x W_n) + 0.01 (Shazeer et al., ICLR 2017).

    A task may have a window: the experts that it may use. Softmax, choice and balance losses then
    know no others, in training too, so what lies outside can be removed from a network of that
    task alone without any change.

    Shapes: x (B, ..., D) → `RouterOut` of (B, ..., K) and (B, ..., E).

    Args:
        tasks: names.
        dim: D, of what the router sees.
        num_experts: E.
        top_k: K.
        norm: of the weights.
        noise: while training.
        noise_std: σ of ``vmoe``, at least 0; the published command of M³ViT sets 0.
        task_windows: experts by task, at least K different ones; tasks that are left out use all.

    Raises:
        UnknownNameError: a word or a task is not known.
        ArgumentError: a number is out of range, or a window is smaller than K.
    """

    _allowed: Tensor | None

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
        super().__init__(tasks, num_experts, top_k)
        for name, value, known in (("norm", norm, GateNorm), ("noise", noise, Noise)):
            if value not in get_args(known):
                raise UnknownNameError(name, value, get_args(known))
        if not noise_std >= 0:
            raise ArgumentError("noise_std", "not be negative", noise_std)
        self.dim = dim
        self.norm: GateNorm = norm
        self.noise: Noise = noise
        self.noise_std = noise_std
        self.noise_scale = nn.Linear(dim, num_experts, bias=False) if noise == "shazeer" else None
        self.task_windows: dict[TaskName, tuple[int, ...]] = {}
        self.register_buffer("_allowed", None, persistent=False)
        self.set_windows(task_windows or {})

    def set_windows(self, task_windows: TaskWindows) -> None:
        """Give tasks windows instead of those that they have.

        Args:
            task_windows: experts by task; tasks that are left out use all.

        Raises:
            UnknownNameError: there is no such task.
            ArgumentError: a window names experts that do not exist, or fewer than K.
        """
        found = {}
        for name, experts in task_windows.items():
            if name not in self.tasks:
                raise UnknownNameError("task_windows", name, self.tasks)
            window = sorted(check_experts(experts, self.num_experts, f"task_windows of {name}"))
            if len(window) < self.top_k:
                rule = f"hold top_k = {self.top_k} experts at least"
                raise ArgumentError(f"task_windows of {name}", rule, window)
            found[name] = tuple(window)
        self.task_windows = found
        allowed = None
        if found:
            like = next(self.parameters(), torch.empty(0))
            allowed = torch.ones(len(self.tasks), self.num_experts, dtype=torch.bool)
            for name, experts in found.items():
                allowed[self.index(name)] = False
                allowed[self.index(name), list(experts)] = True
            allowed = allowed.to(like.device)
        self._allowed = allowed

    def allowed(self, task: TaskName | Tensor, like: Tensor) -> Tensor | None:
        """Which experts may be chosen, expanded to logits `like` (B, ..., E); None: all."""
        if self._allowed is None:
            return None
        rows = self._allowed[self.index(task) if isinstance(task, str) else task]
        if isinstance(task, Tensor):
            rows = rows.view(rows.shape[0], *[1] * (like.ndim - 2), self.num_experts)
        return rows.expand(like.shape)

    @abstractmethod
    def logits(self, x: Tensor, task: TaskName | Tensor) -> Tensor:
        """Logits (B, ..., E) of float32 tokens (B, ..., D), outside of autocast."""

    def forward(self, x: Tensor, task: TaskName | Tensor) -> RouterOut:
        """Experts and weights of every token of x (B, ..., D)."""
        with full_precision(x):
            wide = x.float()
            clean = self.logits(wide, task)
            allowed = self.allowed(task, clean)
            if allowed is not None:
                clean = clean.masked_fill(~allowed, OUTSIDE)
            scale = self._scale(wide, clean)
            noisy = None if scale is None else clean + torch.randn_like(clean) * scale
            idx, gate, probs, *_ = choose(clean if noisy is None else noisy, self.top_k, self.norm)
            # Not by _replace, whose result a program compiled by torch 2.11 cannot return.
            return RouterOut(idx, gate, probs, clean, noisy, scale, allowed)

    def _scale(self, x: Tensor, logits: Tensor) -> Tensor | None:
        if not self.training or self.noise == "none":
            return None
        if self.noise_scale is not None:
            return F.softplus(F.linear(x, self.noise_scale.weight.float())) + 0.01
        if self.noise_std == 0:
            return None
        return torch.full_like(logits, self.noise_std / self.num_experts)

    def keep(self, experts: Sequence[int]) -> None:
        """Forget all experts but these, which are numbered anew in this order, in windows too.

        Raises:
            ArgumentError: an expert does not exist or is named twice, or fewer than K remain, for
                a task with a window in it.
        """
        kept = check_experts(experts, self.num_experts)
        if len(kept) < self.top_k:
            raise ArgumentError("experts", f"leave top_k = {self.top_k} at least", kept)
        windows = {
            name: [kept.index(e) for e in window if e in kept]
            for name, window in self.task_windows.items()
        }
        for name, window in windows.items():
            if len(window) < self.top_k:
                rule = f"leave top_k = {self.top_k} of the window of {name} at least"
                raise ArgumentError("experts", rule, kept)
        for layer in self.columns():
            layer.weight = nn.Parameter(layer.weight.detach()[kept].clone())
            layer.out_features = len(kept)
        self.num_experts = len(kept)
        self.set_windows(windows)

    def grow(self, count: int) -> None:
        """Add columns for `count` more experts, drawn as the first ones were.

        They lie outside of all windows; `set_windows` makes these larger.
        """
        if count < 1:
            raise ArgumentError("count", "be at least 1", count)
        for layer in self.columns():
            more = nn.Linear(layer.in_features, count, bias=False).to(layer.weight)
            layer.weight = nn.Parameter(torch.cat([layer.weight.detach(), more.weight.detach()]))
            layer.out_features += count
        self.num_experts += count
        self.set_windows(self.task_windows)

    def columns(self) -> list[nn.Linear]:
        """The layers whose outputs are one number an expert; a subclass adds its own."""
        return [] if self.noise_scale is None else [self.noise_scale]


def choose(logits: Tensor, top_k: int, norm: GateNorm) -> RouterOut:
    """The K largest of softmax(logits), with their weights.

    Args:
        logits: (..., E).
        top_k: K.
        norm: ``none``: the softmax over all E; ``topk``: over the chosen K.

    >>> choose(torch.tensor([0.0, 2.0, 1.0]), 2, "topk").idx.tolist()
    [1, 2]
    """
    probs = logits.softmax(-1)
    best, idx = logits.topk(top_k, -1)
    gate = best.softmax(-1) if norm == "topk" else probs.gather(-1, idx)
    return RouterOut(idx, gate, probs, logits)


def check_experts(experts: Sequence[int], count: int, argument: str = "experts") -> list[int]:
    """The experts as a list, refused where one does not exist or is named twice."""
    chosen = [int(e) for e in experts]
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= e < count for e in chosen):
        raise ArgumentError(argument, f"be different numbers in 0..{count - 1}", chosen)
    return chosen
