"""Networks of one encoder per task that mix their features behind every stage."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.hub import from_pretrained
from mtl_core.nn import Decoded, Features, MultiTaskNetwork, Outputs
from mtl_core.rebuild import from_checkpoint
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_vision.decoders import ASPPDecoder, DecoderFactory, build_decoders
from mtl_vision.encoders import EncoderFactory, build_encoder
from mtl_vision.encoders.staged import State, run_in_stages
from mtl_vision.networks.hard_sharing import HardSharing
from mtl_vision.networks.image import ImageNetwork, image_tensor


class MixingNetwork(ImageNetwork):
    """T single-task networks whose features are mixed behind every stage of their encoders.

    Every prediction depends on every encoder, so there is no border: encoders and mixing units are
    shared parameters, only decoders are a task's own. Asked for some tasks, it runs all encoders
    and mixing units but those of the last stage that only others need, and only the decoders of
    these tasks. A subclass writes `mixer`.

    Args:
        tasks: records by name.
        encoder: of every task, a timm name or a class with its ``init_args``; see
            `mtl_vision.encoders.run_in_stages` for the families that have stages.
        pretrained: load the published weights, for a timm name.
        img_size: (H, W) of all images, for a timm name; needed where it is not the model's default.
        decoder: of every dense task. Tasks of whole images take `mtl_core.nn.LinearDecoder`.
        decoders: exceptions by task name.
        diagonal: initial weight of a task's own features.
        off_diagonal: initial weight of every other task's.
        start_from: single-task networks to start from, a `HardSharing` per task: checkpoints of the
            command line, or folders of `mtl_core.hub.save_pretrained`. Tasks left out start fresh.
            Not read when a saved network is rebuilt.
        mixing_rate: multiple of the optimiser's learning rate for the mixing units.

    Raises:
        UnknownNameError: `start_from` or `decoders` names no task.
        ArgumentError: a network to start from lacks the task, or has another structure.
        RebuildError: a checkpoint cannot be read.
    """

    border: ClassVar[bool] = False

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: str | EncoderFactory,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        decoder: DecoderFactory = ASPPDecoder,
        decoders: dict[TaskName, DecoderFactory] | None = None,
        diagonal: float,
        off_diagonal: float,
        start_from: dict[TaskName, Path] | None = None,
        mixing_rate: float,
    ) -> None:
        super().__init__(tasks)
        if mixing_rate <= 0:
            raise ArgumentError("mixing_rate", "be positive", mixing_rate)
        self.mixing_rate = mixing_rate
        encoders = {
            name: build_encoder(encoder, pretrained=pretrained, img_size=img_size)
            for name in self.tasks
        }
        self.encoders = nn.ModuleDict(encoders)
        self._staged = {name: run_in_stages(e) for name, e in encoders.items()}
        first = next(iter(self._staged.values()))
        self._axis = first.axis
        self.decoders = build_decoders(first.info, self.tasks, decoder, decoders)
        count = len(self.tasks)
        weights = torch.full((count, count), float(off_diagonal)).fill_diagonal_(float(diagonal))
        self.mixers = nn.ModuleList(
            nn.ModuleList(self.mixer(weights, channels) for channels in stage)
            for stage in first.channels
        )
        for name, path in (start_from or {}).items():
            self._start(name, Path(path))

    @abstractmethod
    def mixer(self, weights: Tensor, channels: int) -> nn.Module:
        """Module that mixes features (B, C, h, w) of T tasks at one place.

        It is called with T maps and the indices of those to give, and gives a list of these.

        Args:
            weights: (T, T) initial weights; row i makes task i's features.
            channels: C.
        """

    def _start(self, task: TaskName, path: Path) -> None:
        if task not in self.tasks:
            raise UnknownNameError("start_from", task, self.tasks)
        single = from_pretrained(path) if path.is_dir() else from_checkpoint(path)
        where = f"start_from[{task!r}]"
        _check_single(single, task, where)
        assert isinstance(single, HardSharing)
        for part, mine, theirs in (
            ("encoder", self.encoders[task], single.encoder),
            ("decoder", self.decoders[task], single.decoders[task]),
        ):
            try:
                mine.load_state_dict(theirs.state_dict())
            except RuntimeError as error:
                rule = f"have the same {part} as this network ({error})"
                raise ArgumentError(where, rule, str(path)) from error

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Mixed features of the first task; every task has its own, see `encode_tasks`."""
        first = next(iter(self.tasks))
        return self.encode_tasks(inputs, [first])[first]

    def encode_tasks(self, inputs: Inputs, tasks: Sequence[TaskName]) -> dict[TaskName, Features]:
        """Features by task, for the decoders of these tasks.

        Args:
            inputs: images (B, 3, H, W).
            tasks: names of those wanted.
        """
        images = image_tensor(inputs)
        names = list(self.tasks)
        states: list[State] = [self._staged[name].start(images) for name in names]
        history: list[list[State]] = []
        everyone = list(range(len(names)))
        for s, stage in enumerate(self.mixers):
            mixers = cast("nn.ModuleList", stage)
            states = [self._staged[n].advance(x, s) for n, x in zip(names, states, strict=True)]
            last = s == len(self.mixers) - 1
            targets = [names.index(n) for n in tasks] if last else everyone
            mixed = [
                self._mix(mixer, [state[k] for state in states], targets)
                for k, mixer in enumerate(mixers)
            ]
            states = [list(branches) for branches in zip(*mixed, strict=True)]
            history.append(states)
        size = (images.shape[-2], images.shape[-1])
        found: dict[TaskName, Features] = {}
        for i, name in enumerate(tasks):
            own = [after[names.index(name)] for after in history[:-1]]
            found[name] = self._staged[name].finish([*own, history[-1][i]], size)
        return found

    def _mix(self, mixer: nn.Module, tensors: list[Tensor], targets: list[int]) -> list[Tensor]:
        """Mixed tensors of the state; tokens (B, N, D) and maps alike as (B, C, h, w)."""
        if self._axis == 1:
            mixed: list[Tensor] = mixer(tensors, targets)
            return mixed
        shape = tensors[0].shape
        maps = [t.flatten(1, -2).transpose(1, 2).unsqueeze(-1) for t in tensors]
        return [m.squeeze(-1).transpose(1, 2).reshape(shape) for m in mixer(maps, targets)]

    def decode(self, features: Features, task: TaskName) -> Tensor | Decoded:
        """Raw prediction of one task from its own features (`encode_tasks`)."""
        decoded: Tensor | Decoded = self.decoders[task](features)
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """The decoder, and what of the encoder lies behind the last mixing: all else is shared."""
        return [self.decoders[task], *self._staged[task].closing()]

    def required_tasks(self, task: TaskName) -> tuple[TaskName, ...]:
        """All tasks."""
        super().required_tasks(task)
        return tuple(self.tasks)

    def learning_rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The mixing units learn at `mixing_rate` times the optimiser's rate."""
        mixing = [p for p in self.mixers.parameters() if p.requires_grad]
        return [(self.mixing_rate, mixing)]

    def compiled_parts(self) -> list[nn.Module]:
        """The blocks of all encoders, which run one by one, the mixing units and the decoders."""
        units = [unit for staged in self._staged.values() for unit in staged.units()]
        mixers = [unit for stage in self.mixers for unit in cast("nn.ModuleList", stage)]
        return [*units, *mixers, *self.decoders.values()]

    def run(
        self,
        inputs: Inputs,
        *,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
        cut: bool = False,
    ) -> Outputs:
        """Forward pass with everything a training step needs.

        Args:
            inputs: images (B, 3, H, W).
            tasks: names to predict, None for all; other decoders do not run, all encoders do.
            tags: not used.
            cut: ignored, there is no border.
        """
        chosen = self.select(tasks)
        out = Outputs({})
        for name, features in self.encode_tasks(inputs, chosen).items():
            decoded = self.decode(features, name)
            if isinstance(decoded, Decoded):
                out.predictions[name] = decoded.prediction
                out.intermediate[name] = decoded.intermediate
            else:
                out.predictions[name] = decoded
        return out


def _check_single(network: MultiTaskNetwork, task: TaskName, where: str) -> None:
    if not isinstance(network, HardSharing):
        found: object = type(network).__name__
    elif task not in network.tasks:
        found = sorted(network.tasks)
    else:
        return
    raise ArgumentError(where, f"be a HardSharing network with the task {task!r}", found)
