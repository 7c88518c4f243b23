"""One memorial mixture-of-experts module: shared experts, and a memory for every task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.moe.context import ContextRouter, GateKind, dense_gates
from mtl_core.types import TaskName
from mtl_vision.decoders.blocks import Norm, norm_layer
from mtl_vision.networks.assembly import assemble
from mtl_vision.networks.experts import ExpertKind, build_experts

ReadKind: TypeAlias = Literal["conv", "identity"]
WriteKind: TypeAlias = Literal["conv", "identity", "gated"]


@dataclass(frozen=True)
class MemorialOptions:
    """What all modules of a network have in common.

    Args:
        width: C.
        num_experts: N.
        expert: kind of the experts.
        ranks: of low-rank experts; None: `mtl_vision.networks.experts.default_ranks`.
        gate: what the gates look at: ``context``, ``gap`` (mean over positions) or ``static``.
        granularity: gates of a ``sample``, or of every ``token`` (position).
        top_k: experts that a gate keeps, the memory counted as one; None keeps all.
        memory: whether a task reads its memory as one more expert.
        read: ``conv`` (1×1) or ``identity``.
        write: what is added to the memory, ``conv`` (1×1, normalised) or ``identity``; or
            ``gated``: new and old memory mixed by a gate for every channel and position.
        gain: initial scale of what ``conv`` writes.
        norm: ``batch`` or ``group``.

    Raises:
        ArgumentError: options contradict each other.
    """

    width: int
    num_experts: int
    expert: ExpertKind = "conv_bn_gelu"
    ranks: Sequence[int] | None = None
    gate: GateKind = "context"
    granularity: Literal["sample", "token"] = "sample"
    top_k: int | None = None
    memory: bool = True
    read: ReadKind = "conv"
    write: WriteKind = "conv"
    gain: float = 1.0
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        """Check what belongs together."""
        if self.write == "gated" and not self.memory:
            raise ArgumentError("write", "not be 'gated' without a memory", self.write)
        if self.gate == "linear":
            raise ArgumentError("gate", "be context, gap or static for maps", self.gate)


class Write(nn.Module):
    """What becomes of a task's memory: M + W(Z), or (1 − β)·M + β·W(Z).

    Shapes: memory M and features Z (B, C, h, w) → (B, C, h, w).

    Args:
        width: C.
        kind: see `MemorialOptions`.
        gain: initial scale of the normalisation behind W.
        norm: ``batch`` or ``group``.
    """

    def __init__(self, width: int, *, kind: WriteKind, gain: float, norm: Norm) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Identity()
        if kind != "identity":
            scaled = norm_layer(norm)(width)
            self.conv = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), scaled)
            if kind == "conv":
                weight = scaled.weight
                assert isinstance(weight, Tensor)
                nn.init.constant_(weight, gain)
        self.gate: nn.Conv2d | None = None
        if kind == "gated":
            self.gate = nn.Conv2d(2 * width, width, 1)
            assert self.gate.bias is not None
            nn.init.constant_(self.gate.bias, -1.0)

    def forward(self, memory: Tensor, features: Tensor) -> Tensor:
        """The memory after the module."""
        written: Tensor = self.conv(features)
        if self.gate is None:
            return memory + written
        beta = torch.sigmoid(self.gate(torch.cat([memory, features], 1)))
        return (1 - beta) * memory + beta * written


class MemorialModule(nn.Module):
    """Experts on one feature map, assembled for every task with its memory as one more expert.

    X = project(F); E_i = expert_i(X); g_t = gate_t(X + M_t);
    Z_t = Σ_i g_ti·E_i + g_t,N+1·read_t(M_t); M_t ← write_t(M_t, Z_t). Experts and projection are
    shared by all tasks and see neither gate nor memory, so that a network may put its border right
    behind them.

    Args:
        tasks: names.
        channels: of F.
        options: everything else.
        remembers: whether there is anything in the memory already; if not, it is no expert here.
    """

    def __init__(
        self,
        tasks: Sequence[TaskName],
        channels: int,
        options: MemorialOptions,
        *,
        remembers: bool = True,
    ) -> None:
        super().__init__()
        o = options
        self.remembers = o.memory and remembers
        self.project = nn.Conv2d(channels, o.width, 1)
        self.experts = build_experts(o.expert, o.num_experts, o.width, ranks=o.ranks, norm=o.norm)
        count = o.num_experts + self.remembers
        self.router = ContextRouter(
            tasks,
            o.width,
            count,
            None if o.top_k is None else min(o.top_k, count),
            gate=o.gate,
            granularity=o.granularity,
        )
        self.read = nn.ModuleDict()
        if self.remembers:
            for name in tasks:
                conv = o.read == "conv"
                self.read[name] = nn.Conv2d(o.width, o.width, 1) if conv else nn.Identity()
                with torch.no_grad():
                    # Later modules are to work before the memory takes everything over.
                    self.router.bias(name)[-1] = -2.0
        self.write = nn.ModuleDict(
            {name: Write(o.width, kind=o.write, gain=o.gain, norm=o.norm) for name in tasks}
        )

    def share(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """X (B, C, h, w) and all E_i as one map (B, N·C, h, w), from F (B, D, h, w)."""
        x = self.project(features)
        return x, self.experts(x).flatten(1, 2)

    def forward(
        self, x: Tensor, experts: Tensor, memory: Sequence[Tensor], tasks: Sequence[TaskName]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """One step of the memories of some tasks.

        Args:
            x: X.
            experts: what `share` gave.
            memory: M_t (B, C, h, w) of every task.
            tasks: their names.

        Returns:
            New memories, and gates (B, E) or (B, h, w, E) over the experts and, where it is one,
            the memory.
        """
        count = self.experts.num_experts
        gates = []
        for name, old in zip(tasks, memory, strict=True):
            seen = x + old if self.remembers else x
            gates.append(dense_gates(self.router(seen, name), self.router.num_experts))
        features = assemble(experts, [g[..., :count] for g in gates])
        found = []
        for i, (name, old) in enumerate(zip(tasks, memory, strict=True)):
            own = features[i]
            if self.remembers:
                own = own + _over_map(gates[i][..., count], own) * self.read[name](old)
            found.append(self.write[name](old, own))
        return found, gates

    def own(self, task: TaskName) -> list[nn.Module]:
        """The modules that serve only one task."""
        read = [self.read[task]] if self.remembers else []
        return [self.router.gates[task], *read, self.write[task]]


def _over_map(gate: Tensor, like: Tensor) -> Tensor:
    """Weights (B,) or (B, h, w) that multiply a map (B, C, h, w), in its type."""
    shaped = gate[:, None, None, None] if gate.ndim == 1 else gate[:, None]
    return shaped.to(like.dtype)
