"""One block of MLoRE, and the fusion of its taps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.moe.context import Context, ContextRouter, dense_gates
from mtl_core.moe.precision import full_precision
from mtl_core.types import TaskName
from mtl_vision.decoders.blocks import Norm, norm_layer
from mtl_vision.networks.experts import LowRankExperts


@dataclass(frozen=True)
class MLoREOptions:
    """What all blocks of a network have in common.

    Args:
        width: C.
        ranks: of the shared experts.
        task_rank: of every task's own pair of convolutions.
        top_k: experts that a gate keeps.
        gate_norm: of kept gates, see `ContextRouter`.
        noise: of the gates in training, see `ContextRouter`.
        norm: ``batch`` or ``group``.
        fold: fold every sample's mixture into one convolution in evaluation without gradients.
    """

    width: int
    ranks: tuple[int, ...]
    task_rank: int
    top_k: int
    gate_norm: Literal["topk", "none"]
    noise: Literal["none", "learned"]
    norm: Norm
    fold: bool = False

    def __post_init__(self) -> None:
        """Check what belongs together."""
        if self.fold and self.norm != "batch":
            raise ArgumentError("norm", "be 'batch' with fold", self.norm)


class TaskPath(nn.Module):
    """What is one task's own in a block.

    Args:
        options: of the block.
    """

    def __init__(self, options: MLoREOptions) -> None:
        super().__init__()
        width, hidden = options.width, max(1, options.width // 4)
        self.enter = nn.Conv2d(width, width, 1)
        self.context = Context(width, hidden)
        self.mix = nn.Linear(2 * hidden, 1)
        self.down = nn.Conv2d(width, options.task_rank, 3, padding=1, bias=False)
        self.up = nn.Conv2d(options.task_rank, width, 1, bias=False)
        self.expert_norm = norm_layer(options.norm)(width)
        self.norm = norm_layer(options.norm)(width)
        self.leave = nn.Conv2d(width, width, 1)


class MLoREBlock(nn.Module):
    """Experts shared by the tasks, a task's own low-rank pair, and one full convolution for all.

    z = conv_t(f); u = norm_t(Σ_j g_j E_j(z)) + m·S_t(z) + G(stopgrad z);
    out = conv'_t(GELU(norm'_t(u))), with gates g and the mixing weight m from the `Context` of z.
    Tasks are computed one after another: in one batch they would get each other's (zero) gradients.

    Args:
        tasks: names.
        options: everything else.
    """

    def __init__(self, tasks: Sequence[TaskName], options: MLoREOptions) -> None:
        super().__init__()
        o = options
        hidden = max(1, o.width // 4)
        self.fold = o.fold
        self.experts = LowRankExperts(o.ranks, o.width)
        self.generic = nn.Conv2d(o.width, o.width, 3, padding=1, bias=False)
        self.router = ContextRouter(
            tasks,
            2 * hidden,
            len(o.ranks),
            o.top_k,
            gate="linear",
            norm=o.gate_norm,
            noise=o.noise,
        )
        self.paths = nn.ModuleDict({name: TaskPath(options) for name in tasks})

    def forward(
        self, maps: Sequence[Tensor], tasks: Sequence[TaskName]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of some tasks after the block.

        Args:
            maps: f (B, C, h, w) of every task.
            tasks: their names.

        Returns:
            Maps (B, C, h, w) and gates (B, N).
        """
        found, gates = [], []
        for name, f in zip(tasks, maps, strict=True):
            path = self._path(name)
            z = path.enter(f)
            gate, mix = self.gate(z, name)
            inner = self._convolve if self._folds() else self._mix
            found.append(path.leave(F.gelu(inner(name, z, gate, mix))))
            gates.append(gate)
        return found, gates

    def _mix(self, task: TaskName, entered: Tensor, gates: Tensor, mix: Tensor) -> Tensor:
        """norm'_t(u) of one task, expert by expert."""
        path = self._path(task)
        own = mix.to(entered.dtype)[:, None, None] * path.up(path.down(entered))
        generic = self.generic(entered.detach())
        u = path.expert_norm(self.experts.mixed(entered, gates)) + own + generic
        found: Tensor = path.norm(u)
        return found

    def _folds(self) -> bool:
        # With gradients on, the full convolution would send some back to z. In a graph kernels are
        # better constants.
        useless = torch.is_grad_enabled() or torch.compiler.is_exporting()
        return self.fold and not self.training and not useless

    def _convolve(self, task: TaskName, entered: Tensor, gates: Tensor, mix: Tensor) -> Tensor:
        """norm'_t(u) of one task, by one convolution a sample."""
        kernels, bias = self.folded(task, gates, mix)
        batch, width = entered.shape[:2]
        grouped = entered.flatten(0, 1)[None]
        found = F.conv2d(grouped, kernels.flatten(0, 1), padding=1, groups=batch)
        return found.view(batch, width, *entered.shape[2:]) + bias[:, None, None].to(found.dtype)

    def gate(self, entered: Tensor, task: TaskName) -> tuple[Tensor, Tensor]:
        """Gates over the experts (B, N) and the mixing weight (B, 1), from z (B, C, h, w)."""
        path = self._path(task)
        with full_precision(entered):
            context = path.context(entered.to(path.mix.weight.dtype))
            mix: Tensor = path.mix(context).float()
        return dense_gates(self.router(context, task), self.experts.num_experts), mix

    @torch.no_grad()
    def folded(self, task: TaskName, gates: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
        """The 3×3 convolution z → norm'_t(u) that the block is for given gates.

        Args:
            task: whose.
            gates: g (B, N).
            mix: m (B, 1).

        Returns:
            Kernels (B, C, C, 3, 3), and the bias (C,) that all share.

        Raises:
            ArgumentError: the normalisation depends on the input.
        """
        path = self._path(task)
        if not isinstance(path.norm, nn.BatchNorm2d) or path.norm.training:
            rule = "be that of batch normalisation in evaluation mode, so that it is fixed"
            raise ArgumentError("the block's state", rule, type(path.norm).__name__)
        with full_precision(gates):
            scale, shift = _affine(path.expert_norm)
            pair = (path.up.weight.flatten(1) @ path.down.weight.flatten(1)).unflatten(
                1, path.down.weight.shape[1:]
            )
            kernels = _by_channel(scale) * self.experts.fold(gates) + self.generic.weight
            kernels = kernels + mix[..., None, None, None] * pair
            last, bias = _affine(path.norm)
            return _by_channel(last) * kernels, last * shift + bias

    def own(self, task: TaskName) -> list[nn.Module]:
        """The modules that serve only one task."""
        return [self.paths[task], self.router.gates[task]]

    def _path(self, task: TaskName) -> "TaskPath":
        path = self.paths[task]
        assert isinstance(path, TaskPath)
        return path


def _by_channel(scale: Tensor) -> Tensor:
    """(C,) as factors of kernels (..., C, C, 3, 3)."""
    return scale[:, None, None, None]


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What batch normalisation multiplies with and adds in evaluation mode, by channel."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - scale * norm.running_mean


class TapFusion(nn.Module):
    """Weighted sum of a task's taps, with weights for every tap and position.

    Concatenation, 1×1 convolution, normalisation, GELU, 3×3 convolution to a map a tap, softmax.

    Shapes: L maps (B, C, h, w) → (B, C, h, w).

    Args:
        taps: L.
        width: C.
        norm: ``batch`` or ``group``.
    """

    def __init__(self, taps: int, width: int, *, norm: Norm = "batch") -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Conv2d(taps * width, width, 1, bias=False),
            norm_layer(norm)(width),
            nn.GELU(),
            nn.Conv2d(width, taps, 3, padding=1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The fused map (B, C, h, w)."""
        weights = self.score(torch.cat(list(maps), 1)).float().softmax(1).to(maps[0].dtype)
        weighted = [w[:, None] * m for w, m in zip(weights.unbind(1), maps, strict=True)]
        return torch.stack(weighted).sum(0)
