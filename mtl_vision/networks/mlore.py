"""MLoRE: mixtures of low-rank linear experts that fold into one convolution."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import Features, Outputs
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_vision.decoders.blocks import Norm
from mtl_vision.encoders import EncoderFactory
from mtl_vision.networks.experts import default_ranks
from mtl_vision.networks.gate_losses import gate_balance
from mtl_vision.networks.mlore_block import MLoREBlock, MLoREOptions, TapFusion
from mtl_vision.networks.tapped import TappedNetwork
from mtl_vision.networks.task_head import HeadKind, build_head


class MLoRE(TappedNetwork):
    """Mixture of low-rank experts (Yang et al., CVPR 2024), from the parts of `TaskExpert`.

    At every tap a 1×1 convolution shared by the tasks and a few blocks (`MLoREBlock`); every task
    then weighs its taps at each position and predicts. The experts see maps of single tasks, so
    tasks meet behind the encoder too and the network has no border; experts, tap projections and
    the full convolutions are shared parameters. Asked for one task, nothing of the others runs.

    Against the published code, the gates pool positions with predicted weights instead of a linear
    layer over h·w positions, so any image size will do.

    Shapes: images (B, 3, H, W) → (B, C, H, W) for a dense task, otherwise (B, C); `run` keeps
    the heads' resolution, `upsample` times the grid's.

    Args:
        tasks: records by name.
        encoder: a timm name, or a class with its ``init_args``; see `TaskExpert`.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        width: channels. Published: 640 (PASCAL, ViT-B), 452 (ViT-L), 192 (ViT-S), 768 (NYUD,
            ViT-L).
        ranks: of the experts. Published: 16, 24, ..., 128. None: 15, evenly from width/40 to
            width/5.
        task_rank: of every task's own pair; None: width/10 (64 in the published ViT-B model).
        top_k: experts that a gate keeps.
        pre_softmax: whether kept gates sum to 1 (published for NYUD) or stay what they are among
            all experts (PASCAL).
        noise: whether learned noise is added to the gates in training.
        blocks: at every tap.
        head: ``full``, or the lighter ``ds`` and ``pixelshuffle`` (`MapHead`).
        upsample: factor from the grid to the prediction.
        norm: ``batch``, or ``group`` for few samples a device; only ``batch`` folds.
        fold: in evaluation without gradients make one 3×3 convolution of every sample's mixture,
            which costs less where there are more positions than about `width`; the result is the
            same. Exported graphs never do: the kernels are computed.
        balance: weight of the auxiliary loss that all experts be used (`gate_balance`). Published:
            1e-4 (PASCAL, ViT-B), 3e-4 (ViT-L), 5e-4 (NYUD).
        decoder_lr: multiple of the learning rate for everything but the encoder.

    Raises:
        UnknownNameError: the encoder does not exist.
        ArgumentError: more experts are kept than there are.

    Example:
        >>> from mtl_vision.tasks import DepthEstimation, SemanticSegmentation
        >>> tasks = {"semseg": SemanticSegmentation(num_classes=4), "depth": DepthEstimation()}
        >>> network = MLoRE(tasks, encoder="resnet10t", width=16, ranks=(1, 2, 4), top_k=2)
        >>> {name: tuple(p.shape) for name, p in network(torch.rand(2, 3, 64, 64)).items()}
        {'semseg': (2, 4, 64, 64), 'depth': (2, 1, 64, 64)}
    """

    border: ClassVar[bool] = False

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        width: int = 640,
        ranks: tuple[int, ...] | None = None,
        task_rank: int | None = None,
        top_k: int = 9,
        pre_softmax: bool = False,
        noise: bool = True,
        blocks: int = 2,
        head: HeadKind = "full",
        upsample: int = 4,
        norm: Norm = "batch",
        fold: bool = False,
        balance: float = 1e-4,
        decoder_lr: float = 1.0,
    ) -> None:
        super().__init__(
            tasks,
            encoder=encoder,
            pretrained=pretrained,
            img_size=img_size,
            decoder_lr=decoder_lr,
        )
        if blocks < 1:
            raise ArgumentError("blocks", "be at least 1", blocks)
        channels = self.encoder.info.channels
        self.balance = balance
        options = MLoREOptions(
            width=width,
            ranks=default_ranks(15, width) if ranks is None else tuple(ranks),
            task_rank=max(1, width // 10) if task_rank is None else task_rank,
            top_k=top_k,
            gate_norm="topk" if pre_softmax else "none",
            noise="learned" if noise else "none",
            norm=norm,
            fold=fold,
        )
        names = tuple(self.tasks)
        self.projections = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.layers = nn.ModuleList(
            nn.ModuleList(MLoREBlock(names, options) for _ in range(blocks)) for _ in channels
        )
        self.fusions = nn.ModuleDict({n: TapFusion(len(channels), width, norm=norm) for n in names})
        self.heads = nn.ModuleDict(
            {
                name: build_head(width, task, kind=head, upsample=upsample, norm=norm)
                for name, task in self.tasks.items()
            }
        )

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Projected taps (B, width, h, w) of images (B, 3, H, W). Tags are not used."""
        taps = self.taps(inputs)
        maps = [project(tap) for project, tap in zip(self.projections, taps.maps, strict=True)]
        return replace(taps, maps=maps)

    def decode(self, features: Features, task: TaskName) -> Tensor:
        """One task's prediction; nothing of other tasks is computed."""
        return self._decode(features, [task])[0][task]

    def run(
        self,
        inputs: Inputs,
        *,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
        cut: bool = False,
    ) -> Outputs:
        """Forward pass of all tasks at once; `cut` is ignored, there is no border.

        Args:
            inputs: images (B, 3, H, W).
            tasks: names to predict, None for all.
            tags: not used.
            cut: ignored.
        """
        features = self.encode(inputs, tags)
        predictions, gates = self._decode(features, self.select(tasks))
        aux = dict(features.aux)
        if self.training and self.balance and gates:
            aux["balance"] = self.balance * torch.stack([gate_balance(g) for g in gates]).sum()
        return Outputs(predictions, aux=aux)

    def _decode(
        self, features: Features, names: Sequence[TaskName]
    ) -> tuple[dict[TaskName, Tensor], list[list[Tensor]]]:
        """Predictions by task, and of every block the gates of every task."""
        if not names:
            return {}, []
        taps, gates = [], []
        for tap, layer in zip(features.maps, self._blocks(), strict=True):
            maps = [tap] * len(names)
            for block in layer:
                maps, found = block(maps, names)
                gates.append(found)
            taps.append(maps)
        fused = {n: self.fusions[n]([maps[i] for maps in taps]) for i, n in enumerate(names)}
        return {name: self.heads[name](maps) for name, maps in fused.items()}, gates

    def _blocks(self) -> list[list[MLoREBlock]]:
        """Blocks by tap."""
        flat = [block for block in self.layers.modules() if isinstance(block, MLoREBlock)]
        count = len(flat) // len(self.layers)
        return [flat[i : i + count] for i in range(0, len(flat), count)]

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The task's paths through the blocks, gates, fusion and head; experts are shared."""
        inner = [m for layer in self._blocks() for block in layer for m in block.own(task)]
        return [*inner, self.fusions[task], self.heads[task]]

    def compiled_parts(self) -> list[nn.Module]:
        """Encoder, projections, blocks, fusions and heads."""
        blocks = [block for layer in self._blocks() for block in layer]
        tasks = [*self.fusions.values(), *self.heads.values()]
        return [self.encoder, *self.projections, *blocks, *tasks]
