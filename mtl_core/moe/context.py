"""Gates of feature maps: which experts a task takes for an image, or for every position of it."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.moe.precision import full_precision
from mtl_core.moe.router import GateNorm, Router, RouterOut, choose
from mtl_core.types import TaskName

GateKind: TypeAlias = Literal["context", "gap", "static", "linear"]
"""What a `ContextRouter` looks at."""


class Context(nn.Module):
    """What is on a map, over its channels and over its positions, as one vector.

    The gate input of MLoRE (Yang et al., CVPR 2024), but for any size of map: positions are pooled
    with predicted weights, not with a linear layer of fixed size.

    Shapes: (B, C, h, w) → (B, 2·hidden).

    Args:
        channels: C.
        hidden: width of both halves.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.local = LocalContext(channels, hidden)
        self.channel = nn.Linear(hidden, hidden)
        self.score = nn.Conv2d(channels, 1, 1, bias=False)
        self.spatial_norm = nn.LayerNorm(channels)
        self.spatial = nn.Linear(channels, hidden)

    def forward(self, maps: Tensor) -> Tensor:
        """Channel context and spatial context (B, 2·hidden)."""
        # The layer behind the mean over positions is linear, hence it may as well follow it.
        by_channel = self.channel(self.local(maps).mean((1, 2)))
        weights = self.score(maps).flatten(2).softmax(-1)
        pooled = (maps.flatten(2) @ weights.transpose(1, 2)).squeeze(-1)
        by_position = self.spatial(F.gelu(self.spatial_norm(pooled)))
        return torch.cat([by_channel, by_position], 1)


class LocalContext(nn.Module):
    """1×1 convolution, normalisation over the channels and GELU: a vector at every position.

    Shapes: (B, C, h, w) → (B, h, w, hidden).

    Args:
        channels: C.
        hidden: width of the vectors.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, maps: Tensor) -> Tensor:
        """Vectors (B, h, w, hidden)."""
        return F.gelu(self.norm(self.squeeze(maps).movedim(1, -1)))


class _Pooled(nn.Module):
    """Mean over positions and a hidden layer: (B, C, h, w) → (B, hidden)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, hidden)

    def forward(self, maps: Tensor) -> Tensor:
        return F.gelu(self.linear(maps.mean((2, 3))))


class _Constant(nn.Module):
    """Learned numbers that do not depend on the input: (B, ...) → (B, count)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(count))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.repeat(x.shape[0], 1)


class ContextRouter(Router):
    """Routes a feature map with a gate of its own for every task.

    | gate | input | looks at |
    |---|---|---|
    | ``context`` | map (B, C, h, w) | channel and spatial `Context` |
    | ``gap`` | map (B, C, h, w) | the mean over positions, through a hidden layer |
    | ``static`` | anything of B samples | nothing: learned logits |
    | ``linear`` | vectors (B, C) | a context that somebody has computed already |

    No parameter depends on h·w. Everything is computed in float32, also under autocast (in the
    parameters' own type where the whole module has been cast).

    Shapes: `RouterOut` of (B, K), with granularity ``token`` (B, h, w, K). Without `top_k` all E
    experts are taken in their order, K = E.

    Args:
        tasks: names.
        channels: C.
        num_experts: E.
        top_k: experts to keep; None keeps all.
        gate: see above.
        granularity: one choice a ``sample``, or one a ``token``, which only ``context`` offers:
            1×1 convolutions, softmax at every position.
        hidden: width of the context, default C/4, at least 1.
        norm: ``topk``: the weights of kept experts sum to 1; ``none``: they stay what they are
            among all.
        noise: ``learned``: in training, standard normal noise times a scale that the gate gives
            beside every logit.

    Raises:
        ArgumentError: `top_k` or the combination of gate and granularity is impossible.

    Example:
        >>> router = ContextRouter(("semseg", "depth"), channels=16, num_experts=4)
        >>> router(torch.rand(2, 16, 5, 7), "depth").gate.shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        tasks: Sequence[TaskName],
        channels: int,
        num_experts: int,
        top_k: int | None = None,
        *,
        gate: GateKind = "context",
        granularity: Literal["sample", "token"] = "sample",
        hidden: int | None = None,
        norm: GateNorm = "topk",
        noise: Literal["none", "learned"] = "none",
    ) -> None:
        if granularity == "token" and gate != "context":
            raise ArgumentError("granularity", "be 'sample' unless gate is 'context'", granularity)
        super().__init__(tasks, num_experts, num_experts if top_k is None else top_k)
        self.gate = gate
        self.granularity = granularity
        self.norm = norm
        self.noise = noise
        width = max(1, channels // 4) if hidden is None else hidden
        count = num_experts * (1 if noise == "none" else 2)
        self.gates = nn.ModuleDict(
            {name: _build_gate(gate, granularity, channels, width, count) for name in self.tasks}
        )

    def bias(self, task: TaskName) -> nn.Parameter:
        """What is added to one task's logits: (E,), with noise (2·E,)."""
        last = self.gates[task]
        parameter = last[-1].bias if isinstance(last, nn.Sequential) else last.bias
        assert isinstance(parameter, nn.Parameter)
        return parameter

    def forward(self, x: Tensor, task: TaskName | Tensor) -> RouterOut:
        """Experts and weights of every sample, or of every position.

        Args:
            x: (B, C, h, w), or (B, C) for the ``linear`` gate.
            task: a name, or indices (B,) into `tasks`.

        Raises:
            UnknownNameError: the router has no such task.
        """
        with full_precision(x):
            if isinstance(task, Tensor):
                return self._choose(self._raw_by_index(x, task).float())
            return self._choose(self._raw(x, task).float())

    def _raw(self, x: Tensor, task: TaskName) -> Tensor:
        gate = self.gates[self.tasks[self.index(task)]]
        raw: Tensor = gate(x.to(self.bias(task).dtype))
        return raw

    def _raw_by_index(self, x: Tensor, index: Tensor) -> Tensor:
        rows, parts = [], []
        for i, name in enumerate(self.tasks):
            own = (index == i).nonzero().flatten()
            if len(own):
                rows.append(own)
                parts.append(self._raw(x[own], name))
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _choose(self, raw: Tensor) -> RouterOut:
        clean = raw[..., : self.num_experts]
        if self.noise == "none" or not self.training:
            return self._keep(clean)
        scale = raw[..., self.num_experts :]
        noisy = clean + torch.randn_like(clean) * scale
        idx, gate, probs, *_ = self._keep(noisy)
        return RouterOut(idx, gate, probs, clean, noisy, scale.abs())

    def _keep(self, logits: Tensor) -> RouterOut:
        if self.top_k < self.num_experts:
            return choose(logits, self.top_k, self.norm)
        probs = logits.softmax(-1)
        everyone = torch.arange(self.num_experts, device=logits.device)
        return RouterOut(everyone.expand(probs.shape), probs, probs, logits)


def dense_gates(out: RouterOut, num_experts: int) -> Tensor:
    """Weight of every expert (..., E), zero where it is not chosen.

    Args:
        out: a routing.
        num_experts: E.
    """
    empty = out.gate.new_zeros(*out.gate.shape[:-1], num_experts)
    return empty.scatter(-1, out.idx, out.gate)


def _build_gate(
    kind: GateKind, granularity: str, channels: int, hidden: int, count: int
) -> nn.Module:
    if kind == "static":
        return _Constant(count)
    if kind == "linear":
        return nn.Linear(channels, count)
    if kind == "gap":
        return nn.Sequential(_Pooled(channels, hidden), nn.Linear(hidden, count))
    if granularity == "token":
        return nn.Sequential(LocalContext(channels, hidden), nn.Linear(hidden, count))
    return nn.Sequential(Context(channels, hidden), nn.Linear(2 * hidden, count))
