"""Multi-task distillation while training (M³ViT, Liang et al., NeurIPS 2022, section 3)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.tasks import Task
from mtl_core.types import TaskName
from mtl_vision.decoders import ProgressiveDecoder
from mtl_vision.decoders.blocks import Norm, conv_block, map_size, resize


class TaskDistillation(nn.Module):
    """Further predictions of every task from the decoders' features of all, for training only.

    At each of some stages of the decoders the tasks' features are weighed against each other by a
    predicted balance, an attention map is made of them, and what it emphasises in the features of
    all tasks is read out once more for every task. The further predictions are supervised by the
    tasks' own targets and weights; nothing of it is needed to predict.

    The balance B in (0, 1) gives the first half of the tasks (one of two or three) B shared evenly
    among them, the others 1 − B likewise, which is the published rule for two to five tasks and
    extends it to any number. The paper attaches the module to the last and the second-last
    convolution of the decoders; its code, to the second and third of four on PASCAL-Context with
    the small backbone.

    Args:
        decoders: of at least two tasks, in order.
        tasks: records by name.
        levels: stages of the decoders, counted from 0; negative ones count from the end.
        norm: ``batch`` or ``group``.

    Raises:
        ArgumentError: a decoder has no stages, or they differ in number or channels, or a level
            names none of them.
    """

    def __init__(
        self,
        decoders: Mapping[TaskName, nn.Module],
        tasks: Mapping[TaskName, Task],
        *,
        levels: Sequence[int] = (-2, -1),
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if len(decoders) < 2:
            raise ArgumentError("decoders", "belong to two tasks at least", list(decoders))
        channels = _stage_channels(decoders)
        count = len(channels)
        self.levels = tuple(i + count if i < 0 else i for i in levels)
        inside = all(0 <= i < count for i in self.levels)
        if not inside or not self.levels or len(set(self.levels)) < len(self.levels):
            rule = f"name different stages of the decoders, {-count} to {count - 1}"
            raise ArgumentError("distillation levels", rule, tuple(levels))
        self.names = tuple(decoders)
        chosen = {name: tasks[name] for name in self.names}
        self.exchanges = nn.ModuleList(_Exchange(chosen, channels[i], norm) for i in self.levels)

    def forward(self, stages: Mapping[TaskName, Sequence[Tensor]]) -> dict[TaskName, list[Tensor]]:
        """Further raw predictions (B, C, h_l, w_l) by task, one a level.

        Args:
            stages: outputs of all stages of every task's decoder.
        """
        found: dict[TaskName, list[Tensor]] = {name: [] for name in self.names}
        for level, exchange in zip(self.levels, self.exchanges, strict=True):
            predictions = exchange([stages[name][level] for name in self.names])
            for name, prediction in zip(self.names, predictions, strict=True):
                found[name].append(prediction)
        return found

    def heads(self, task: TaskName) -> list[nn.Module]:
        """What reads out one task's further predictions, a module a level."""
        modules: list[nn.Module] = []
        for exchange in self.exchanges:
            assert isinstance(exchange, _Exchange)
            modules.append(exchange.heads[self.names.index(task)])
        return modules


class _Exchange(nn.Module):
    """Distillation at one stage, between maps (B, width, h, w) of T tasks."""

    def __init__(self, tasks: Mapping[TaskName, Task], width: int, norm: Norm) -> None:
        super().__init__()
        count = len(tasks)
        self.first = 1 if count <= 3 else count // 2
        self.balance = nn.Sequential(
            conv_block(count * width, width, norm=norm), nn.Conv2d(width, width, 3, padding=1)
        )
        self.attention = nn.Sequential(
            nn.Conv2d(count * width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        )
        self.heads = nn.ModuleList(
            nn.Sequential(
                conv_block(count * width, width, norm=norm),
                nn.Conv2d(width, task.out_channels, 1),
            )
            for task in tasks.values()
        )

    def weigh(self, maps: Sequence[Tensor], balance: Tensor) -> list[Tensor]:
        """The tasks' maps by their shares of the balance; the shares add up to one."""
        rest = len(maps) - self.first
        parts = [balance / self.first] * self.first + [(1 - balance) / rest] * rest
        return [m * part for m, part in zip(maps, parts, strict=True)]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        balance = torch.sigmoid(self.balance(torch.cat(list(maps), 1)))
        attention = self.attention(torch.cat(self.weigh(maps, balance), 1))
        # Sides that are no multiple of four come back a little larger.
        emphasis = 1 + torch.sigmoid(resize(attention, map_size(maps[0])))
        together = torch.cat([m * emphasis for m in maps], 1)
        return [head(together) for head in self.heads]


def _stage_channels(decoders: Mapping[TaskName, nn.Module]) -> tuple[int, ...]:
    """Channels of the stages, which all decoders have in common."""
    channels: dict[TaskName, tuple[int, ...]] = {}
    for name, decoder in decoders.items():
        if not isinstance(decoder, ProgressiveDecoder):
            raise ArgumentError(
                f"the decoder of {name}",
                "work in stages (PUPDecoder, PUPLightDecoder) where tasks are distilled",
                type(decoder).__name__,
            )
        channels[name] = decoder.stage_channels
    if len(set(channels.values())) > 1:
        rule = "have stages of the same channels where tasks are distilled"
        raise ArgumentError("decoders", rule, channels)
    return next(iter(channels.values()))
