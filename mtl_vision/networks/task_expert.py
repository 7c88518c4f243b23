"""TaskExpert: shared experts at several depths, assembled by every task with its memory."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtl_core.errors import ArgumentError
from mtl_core.modules.replay import kept_buffers
from mtl_core.nn import Decoded, Features, Outputs
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_vision.decoders.blocks import Norm
from mtl_vision.encoders import EncoderFactory
from mtl_vision.networks.experts import ExpertKind
from mtl_vision.networks.gate_losses import gate_balance, gate_entropy
from mtl_vision.networks.memorial import MemorialModule, MemorialOptions, ReadKind, WriteKind
from mtl_vision.networks.tapped import TappedNetwork
from mtl_vision.networks.task_head import HeadKind, build_head, light_head


class TaskExpert(TappedNetwork):
    """Memorial mixture of experts (Ye & Xu, ICCV 2023), our implementation; see docs/taskexpert.md.

    At every tap of the encoder N experts make task-generic features. A gate of every task mixes
    them by what is in the image, together with what the task has remembered from earlier taps, and
    the mixture is written to the task's memory, from which its head predicts. The code of the paper
    was never published; what it leaves open is an argument here.

    Experts see neither gates nor memories, so they belong to the shared features: `encode` gives X
    and all experts of every tap, and behind this border everything is one task's own. Asked for one
    task, nothing of the others runs. Gates are float32 under autocast.

    Shapes: images (B, 3, H, W) → (B, C, H, W) for a dense task, otherwise (B, C); `run` keeps
    the heads' resolution, `upsample` times the grid's.

    Args:
        tasks: records by name.
        encoder: a timm name, or a class with its ``init_args``. All taps are brought to the grid of
            stride 16 (of the encoder's own stride where it has only one).
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        width: channels of experts and memories.
        num_experts: N at every tap.
        expert: ``conv_bn_gelu`` (3×3), ``conv1x1`` (likewise, 1×1) or ``lowrank_linear``.
        ranks: of low-rank experts, one each; None: evenly from width/40 to width/5.
        gate: what the gates look at: ``context`` (channels and positions), ``gap`` (the mean over
            positions) or ``static`` (nothing; learned numbers).
        granularity: gates of a ``sample``, or of every ``token`` (position), for ``context``.
        top_k: experts that a gate keeps, summing to 1, the memory counted as one; None: all.
        memory: False takes the memory from gates and experts; what the taps write is just summed.
        read: how the memory is read, ``conv`` (1×1) or ``identity``.
        write: how it is written, ``conv`` (1×1, normalised, added), ``identity`` (added) or
            ``gated`` (new and old mixed by a learned gate).
        memory_init: ``learned`` vectors that start at zero, or ``zero``; then the first tap has no
            memory to read.
        head: ``full``, or the lighter ``ds`` and ``pixelshuffle`` (`MapHead`).
        upsample: factor from the grid to the prediction.
        norm: ``batch``, or ``group`` for few samples a device.
        intermediate: weight of predictions from the memories after all taps but the last, made in
            training only; 0 makes none. The weight acts on gradients; logged losses, and balancers
            that read losses, contain these predictions unweighted.
        balance: weight of the auxiliary loss that all experts be used (`gate_balance`).
        entropy: weight of an auxiliary reward for gates that stay undecided, in the first
            `entropy_steps` training passes.
        entropy_steps: see above.
        decoder_lr: multiple of the learning rate for everything but the encoder.
        checkpointing: compute the modules again in the backward pass, which keeps the experts' maps
            out of memory.

    With `balance`, `entropy` or `checkpointing` the network has no border: these losses reach the
    experts beside the tasks' losses, and experts that are computed again are no leaf.

    Raises:
        UnknownNameError: the encoder does not exist.
        ArgumentError: options contradict each other.

    Example:
        >>> from mtl_vision.tasks import DepthEstimation, SemanticSegmentation
        >>> tasks = {"semseg": SemanticSegmentation(num_classes=4), "depth": DepthEstimation()}
        >>> network = TaskExpert(tasks, encoder="resnet10t", width=16, num_experts=3)
        >>> {name: tuple(p.shape) for name, p in network(torch.rand(2, 3, 64, 64)).items()}
        {'semseg': (2, 4, 64, 64), 'depth': (2, 1, 64, 64)}
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        width: int = 384,
        num_experts: int = 5,
        expert: ExpertKind = "conv_bn_gelu",
        ranks: tuple[int, ...] | None = None,
        gate: Literal["context", "gap", "static"] = "context",
        granularity: Literal["sample", "token"] = "sample",
        top_k: int | None = None,
        memory: bool = True,
        read: ReadKind = "conv",
        write: WriteKind = "conv",
        memory_init: Literal["learned", "zero"] = "learned",
        head: HeadKind = "full",
        upsample: int = 4,
        norm: Norm = "batch",
        intermediate: float = 0.0,
        balance: float = 0.0,
        entropy: float = 0.0,
        entropy_steps: int = 0,
        decoder_lr: float = 1.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            tasks,
            encoder=encoder,
            pretrained=pretrained,
            img_size=img_size,
            decoder_lr=decoder_lr,
        )
        for name, value in (
            ("balance", balance),
            ("entropy", entropy),
            ("intermediate", intermediate),
        ):
            if value < 0:
                raise ArgumentError(name, "be at least 0", value)
        info = self.encoder.info
        self.intermediate = intermediate
        self.balance = balance
        self.entropy = entropy
        self.entropy_steps = entropy_steps
        self.checkpointing = checkpointing
        self.width = width
        options = MemorialOptions(
            width=width,
            num_experts=num_experts,
            expert=expert,
            ranks=ranks,
            gate=gate,
            granularity=granularity,
            top_k=top_k,
            memory=memory,
            read=read,
            write=write,
            gain=len(info.channels) ** -0.5,
            norm=norm,
        )
        learned = memory and memory_init == "learned"
        names = tuple(self.tasks)
        self.starts = nn.ModuleDict({n: _Start(width if learned else 0) for n in names})
        self.layers = nn.ModuleList(
            MemorialModule(names, channels, options, remembers=learned or index > 0)
            for index, channels in enumerate(info.channels)
        )
        self.heads = nn.ModuleDict(
            {
                name: build_head(width, task, kind=head, upsample=upsample, norm=norm)
                for name, task in self.tasks.items()
            }
        )
        early = len(self.layers) - 1 if intermediate else 0
        self.light_heads = nn.ModuleDict(
            {
                name: nn.ModuleList(light_head(width, task) for _ in range(early))
                for name, task in self.tasks.items()
            }
        )
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))
        self.passes: Tensor

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """X (B, width, h, w) and all experts (B, N·width, h, w) of every tap. No tags."""
        taps = self.taps(inputs)
        maps = [
            m
            for layer, tap in zip(self._layers(), taps.maps, strict=True)
            for m in layer.share(tap)
        ]
        return replace(taps, maps=maps)

    def _layers(self) -> list[MemorialModule]:
        return [layer for layer in self.layers if isinstance(layer, MemorialModule)]

    def _light(self, task: TaskName) -> list[nn.Module]:
        return list(self.light_heads[task].children())

    def decode(self, features: Features, task: TaskName) -> Decoded:
        """One task's prediction from the experts; nothing of other tasks is computed."""
        memories, _ = self._assemble(features, [task])
        return self._predict(task, [at_tap[0] for at_tap in memories])

    def run(
        self,
        inputs: Inputs,
        *,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
        cut: bool = False,
    ) -> Outputs:
        """Forward pass; without `cut` the experts are assembled for all tasks at once.

        Args:
            inputs: images (B, 3, H, W).
            tasks: names to predict, None for all.
            tags: not used.
            cut: give every task its own detached copy of the experts.
        """
        if cut and self.independent_decoders():
            return super().run(inputs, tasks=tasks, tags=tags, cut=True)
        names = self.select(tasks)
        if self.checkpointing and torch.is_grad_enabled():
            out = Outputs({})
            taps = self.taps(inputs)
            out.aux.update(taps.aux)
            memories, gates = self._assemble(taps, names)
        else:
            features = self.encode(inputs, tags)
            out = Outputs({}, features=features, aux=dict(features.aux))
            memories, gates = self._assemble(features, names)
        for index, name in enumerate(names):
            decoded = self._predict(name, [at_tap[index] for at_tap in memories])
            out.predictions[name] = decoded.prediction
            if decoded.intermediate:
                out.intermediate[name] = decoded.intermediate
        if self.training and names:
            out.aux.update(self._gate_losses(gates))
        return out

    def _assemble(
        self, features: Features, names: Sequence[TaskName]
    ) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Memories (B, C, h, w) and gates after every tap, by task; from taps or shared maps."""
        shared = len(features.maps) > len(self.layers)
        size = features.maps[0].shape
        like = features.maps[0][:, :1].expand(-1, self.width, *size[2:])
        memory = [self.starts[name](like) for name in names]
        memories, gates = [], []
        for index, layer in enumerate(self._layers()):
            if shared:
                x, experts = features.maps[2 * index : 2 * index + 2]
                memory, found = layer(x, experts, memory, names)
            else:
                memory, found = checkpoint(
                    _share_and_assemble,
                    layer,
                    features.maps[index],
                    memory,
                    names,
                    use_reentrant=False,
                    context_fn=partial(_contexts, layer),
                )
            memories.append(memory)
            gates.append(found)
        return memories, gates

    def _predict(self, task: TaskName, memories: Sequence[Tensor]) -> Decoded:
        prediction = self.heads[task](memories[-1])
        if not (self.training and self.intermediate):
            return Decoded(prediction)
        pairs = zip(self._light(task), memories[:-1], strict=True)
        found = [head(memory) for head, memory in pairs]
        # The same values, but gradients times the weight.
        return Decoded(
            prediction, tuple(torch.lerp(p.detach(), p, self.intermediate) for p in found)
        )

    def _gate_losses(self, gates: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
        losses = {}
        if self.balance:
            losses["balance"] = self.balance * torch.stack([gate_balance(g) for g in gates]).sum()
        if self.entropy:
            factor = (self.passes < self.entropy_steps) * -self.entropy
            losses["entropy"] = factor * torch.stack([gate_entropy(g) for g in gates]).mean()
            self.passes += 1
        return losses

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's memory, gates, reading, writing and heads; experts are shared."""
        inner = [module for layer in self._layers() for module in layer.own(task)]
        return [self.starts[task], *inner, self.heads[task], *self._light(task)]

    def independent_decoders(self) -> bool:
        """Whether tasks meet only in the experts: no loss on gates, nothing recomputed."""
        apart = not (self.balance or self.entropy or self.checkpointing)
        return apart and super().independent_decoders()

    def compiled_parts(self) -> list[nn.Module]:
        """Encoder, experts, and all that is a task's own; what lies between them stays eager."""
        shared = [(layer.project, layer.experts) for layer in self._layers()]
        own = chain.from_iterable(self.decoder_modules(task) for task in self.tasks)
        return [self.encoder, *chain.from_iterable(shared), *own]


class _Start(nn.Module):
    """The memory in front of the first tap: a learned vector at every position, or zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width, 1, 1)) if width else None

    def forward(self, like: Tensor) -> Tensor:
        zeros = torch.zeros_like(like)
        return zeros if self.vector is None else zeros + self.vector


def _share_and_assemble(
    layer: MemorialModule, tap: Tensor, memory: Sequence[Tensor], names: Sequence[TaskName]
) -> tuple[list[Tensor], list[Tensor]]:
    found: tuple[list[Tensor], list[Tensor]] = layer(*layer.share(tap), memory, names)
    return found


def _contexts(
    layer: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Nothing around the first pass; around later ones, batch statistics that stay."""
    return nullcontext(), _KeptStatistics(layer)


class _KeptStatistics(AbstractContextManager[None]):
    """`kept_buffers` as often as a graph is walked."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self._stack = ExitStack()

    def __enter__(self) -> None:
        self._stack.enter_context(kept_buffers(self.layer))

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
