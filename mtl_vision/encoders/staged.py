"""Encoders that are run stage by stage, for networks that act between the stages."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from timm.models.convnext import ConvNeXt
from timm.models.hrnet import HighResolutionNet
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtl_core.errors import ArgumentError
from mtl_core.nn import Features
from mtl_vision.encoders.base import Encoder
from mtl_vision.encoders.timm import TimmEncoder

State: TypeAlias = list[Tensor]
"""What flows from stage to stage: one tensor, or one a branch (HRNet)."""

Pair: TypeAlias = tuple[Tensor, Tensor]
"""Maps in front of a stage's last block and behind it."""

_FAMILIES = "ResNet, RegNet, ConvNeXt, Swin, plain ViT or HRNet"


class StagedEncoder(ABC):
    """An encoder's own modules, run one stage at a time. It owns no parameters.

    `start`, then `advance` through all stages, then `finish`, gives what the encoder gives at once.
    A stage reaches from one map of the encoder to the next: the levels of a pyramid, groups of
    blocks of a plain ViT. All branches of HRNet run together, so its stages are the published
    four.

    Args:
        encoder: whose modules are run.
        channels: by stage, the channels of every tensor of the state behind it.
        before: by map, the channels in front of the last block.
        axis: of the channels in the tensors of the state; 1 or -1.
    """

    def __init__(
        self,
        encoder: TimmEncoder,
        channels: Sequence[tuple[int, ...]],
        before: Sequence[int],
        axis: int,
    ) -> None:
        self.info = encoder.info
        self.channels = tuple(channels)
        self.before = tuple(before)
        self.axis = axis
        self._encoder = encoder
        self._checkpointing = any(
            getattr(module, "grad_checkpointing", False) for module in encoder.modules()
        )

    def __len__(self) -> int:
        """Number of stages."""
        return len(self.channels)

    @abstractmethod
    def units(self) -> list[nn.Module]:
        """The modules that are called one after another."""

    def closing(self) -> list[nn.Module]:
        """Those of them that run in `finish`, behind all stages."""
        return []

    @abstractmethod
    def start(self, images: Tensor) -> State:
        """What enters the first stage. Images (B, 3, H, W)."""

    @abstractmethod
    def advance(self, state: State, stage: int) -> State:
        """Run one stage, counted from 0."""

    @abstractmethod
    def finish(self, states: Sequence[State], size: tuple[int, int]) -> Features:
        """The encoder's features from the states behind all stages, for images of `size` (H, W)."""

    @abstractmethod
    def pairs(self, images: Tensor) -> list[Pair]:
        """For every map of the encoder, what enters the last block in front of it, and the map.

        Both have the same height and width. A stage of one block that also changes the size gives
        its map twice. The branches of HRNet end with the modules that widen them, or else with the
        last exchange between them.
        """

    def _run(self, units: Sequence[nn.Module], x: Tensor) -> Tensor:
        for unit in units:
            if self._checkpointing and torch.is_grad_enabled():
                x = checkpoint(unit, x, use_reentrant=False)
            else:
                x = unit(x)
        return x


def run_in_stages(encoder: Encoder) -> StagedEncoder:
    """The stages of an encoder.

    Raises:
        ArgumentError: its architecture is not known to be a sequence of stages.

    Example:
        >>> staged = run_in_stages(TimmEncoder("resnet18"))
        >>> staged.channels
        ((64,), (128,), (256,), (512,))
    """
    if isinstance(encoder, TimmEncoder):
        model: Any = encoder.model
        if isinstance(model, HighResolutionNet):
            return _Branches(encoder)
        if isinstance(model, VisionTransformer):
            return _Tokens(encoder)
        for kind, levels in _CHAINS.items():
            if isinstance(model, kind):
                return _Chain(encoder, levels(model), axis=-1 if kind is SwinTransformer else 1)
        found = type(model).__name__
    else:
        found = type(encoder).__name__
    raise ArgumentError("encoder", f"be a timm model that has stages ({_FAMILIES})", found)


@dataclass(frozen=True)
class _Level:
    """Modules between two entries of timm's `feature_info`; `shaped` of them fix the shape."""

    units: list[nn.Module]
    shaped: int


class _Chain(StagedEncoder):
    """A pyramid whose modules are called one after another on maps."""

    def __init__(self, encoder: TimmEncoder, levels: Sequence[_Level], *, axis: int = 1) -> None:
        channels = encoder.info.channels
        super().__init__(encoder, [(c,) for c in channels], channels, axis)
        self._stages: list[list[nn.Module]] = []
        self._splits: list[int] = []
        first = 0
        for index in encoder.indices:
            inner = [unit for level in levels[first:index] for unit in level.units]
            last = levels[index]
            self._stages.append([*inner, *last.units])
            self._splits.append(len(inner) + max(len(last.units) - 1, last.shaped))
            first = index + 1

    def units(self) -> list[nn.Module]:
        return [unit for stage in self._stages for unit in stage]

    def start(self, images: Tensor) -> State:
        self._encoder.check_size(images)
        return [images]

    def advance(self, state: State, stage: int) -> State:
        return [self._run(self._stages[stage], state[0])]

    def finish(self, states: Sequence[State], size: tuple[int, int]) -> Features:
        return Features(maps=[self._map(state[0], size) for state in states], size=size)

    def pairs(self, images: Tensor) -> list[Pair]:
        size = (images.shape[-2], images.shape[-1])
        x = self.start(images)[0]
        found: list[Pair] = []
        for units, split in zip(self._stages, self._splits, strict=True):
            before = self._run(units[:split], x)
            x = self._run(units[split:], before)
            after = self._close(x) if len(found) == len(self) - 1 else x
            found.append((self._map(before, size), self._map(after, size)))
        return found

    def _close(self, x: Tensor) -> Tensor:
        """What the encoder makes of the last stage's tensor."""
        return x

    def _map(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, C, h, w) from a tensor of the chain, for images of `size`."""
        return x if self.axis == 1 else x.permute(0, 3, 1, 2).contiguous()


class _Tokens(_Chain):
    """A plain vision transformer."""

    def __init__(self, encoder: TimmEncoder) -> None:
        self._model: Any = encoder.model
        super().__init__(encoder, [_Level([block], 0) for block in self._model.blocks], axis=-1)

    def units(self) -> list[nn.Module]:
        return [self._model.patch_embed, *super().units(), *self.closing()]

    def closing(self) -> list[nn.Module]:
        return [self._model.norm]

    def start(self, images: Tensor) -> State:
        m = self._model
        [checked] = super().start(images)
        return [m.norm_pre(m.patch_drop(m._pos_embed(m.patch_embed(checked))))]

    def finish(self, states: Sequence[State], size: tuple[int, int]) -> Features:
        final = self._close(states[-1][0])
        maps = [self._map(x, size) for x in (*(state[0] for state in states[:-1]), final)]
        return Features(maps=maps, size=size, tokens=final)

    def _close(self, x: Tensor) -> Tensor:
        closed: Tensor = self._model.norm(x)
        return closed

    def _map(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        stride = self.info.strides[-1]
        patches = x[:, self._model.num_prefix_tokens :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], size[0] // stride, size[1] // stride)


class _Branches(StagedEncoder):
    """HRNet: up to four branches that exchange features at the end of every module."""

    def __init__(self, encoder: TimmEncoder) -> None:
        model: Any = encoder.model
        if 0 in encoder.indices:
            raise ArgumentError("out_indices", "leave out the stem, level 0", encoder.indices)
        stages = (model.stage1_cfg, model.stage2_cfg, model.stage3_cfg, model.stage4_cfg)
        channels = [_channels(stage) for stage in stages]
        before = [channels[-1][i - 1] for i in encoder.indices]
        super().__init__(encoder, channels, before, axis=1)
        self._model = model
        self._widen = model.incre_modules

    def units(self) -> list[nn.Module]:
        m = self._model
        stem = [m.conv1, m.bn1, m.act1, m.conv2, m.bn2, m.act2, m.layer1]
        rest = [*m.transition1, *m.transition2, *m.transition3, m.stage2, m.stage3, *m.stage4]
        return [*stem, *rest, *self.closing()]

    def closing(self) -> list[nn.Module]:
        if self._widen is None:
            return []
        return [self._widen[i - 1] for i in self._encoder.indices]

    def start(self, images: Tensor) -> State:
        m = self._model
        self._encoder.check_size(images)
        return [self._run([m.conv1, m.bn1, m.act1, m.conv2, m.bn2, m.act2], images)]

    def advance(self, state: State, stage: int) -> State:
        if stage == 0:
            return [self._run([self._model.layer1], state[0])]
        modules: Any = getattr(self._model, f"stage{stage + 1}")
        branches: State = modules(self._enter(state, stage))
        return branches

    def _enter(self, state: State, stage: int) -> State:
        """Branches that enter a stage: those there are, and a new one from the coarsest."""
        steps = getattr(self._model, f"transition{stage}")
        return [
            state[i] if isinstance(step, nn.Identity) else step(state[-1])
            for i, step in enumerate(steps)
        ]

    def finish(self, states: Sequence[State], size: tuple[int, int]) -> Features:
        return Features(maps=self._maps(states[-1]), size=size)

    def pairs(self, images: Tensor) -> list[Pair]:
        state = self.start(images)
        for stage in range(len(self) - 1):
            state = self.advance(state, stage)
        before = self._enter(state, len(self) - 1)
        *first, last = self._model.stage4
        for module in first:
            before = module(before)
        # An exchange overwrites the list that it is given.
        after = last(list(before))
        if self._widen is not None:
            before = after
        inner = [before[i - 1] for i in self._encoder.indices]
        return list(zip(inner, self._maps(after), strict=True))

    def _maps(self, branches: State) -> list[Tensor]:
        chosen = [branches[i - 1] for i in self._encoder.indices]
        widen = self.closing()
        if not widen:
            return chosen
        return [module(branch) for module, branch in zip(widen, chosen, strict=True)]


def _channels(stage: dict[str, Any]) -> tuple[int, ...]:
    """Of every branch, from a stage of HRNet's configuration."""
    expansion = 4 if stage["block_type"] == "BOTTLENECK" else 1
    return tuple(int(c) * expansion for c in stage["num_channels"])


def _resnet(model: Any) -> list[_Level]:
    first, *rest = ([*layer] for layer in (model.layer1, model.layer2, model.layer3, model.layer4))
    stem = _Level([model.conv1, model.bn1, model.act1], 3)
    return [stem, _Level([model.maxpool, *first], 2), *(_Level(layer, 1) for layer in rest)]


def _regnet(model: Any) -> list[_Level]:
    stages = ([*stage.children()] for stage in (model.s1, model.s2, model.s3, model.s4))
    return [_Level([model.stem], 1), *(_Level(stage, 1) for stage in stages)]


def _convnext(model: Any) -> list[_Level]:
    first, *rest = ([stage.downsample, *stage.blocks] for stage in model.stages)
    return [_Level([model.stem, *first], 2), *(_Level(stage, 1) for stage in rest)]


def _swin(model: Any) -> list[_Level]:
    first, *rest = ([stage.downsample, *stage.blocks] for stage in model.layers)
    return [_Level([model.patch_embed, *first], 2), *(_Level(stage, 1) for stage in rest)]


_CHAINS: dict[type[nn.Module], Callable[[Any], list[_Level]]] = {
    ResNet: _resnet,
    RegNet: _regnet,
    ConvNeXt: _convnext,
    SwinTransformer: _swin,
}
