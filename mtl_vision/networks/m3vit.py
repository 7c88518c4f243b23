"""M³ViT: a ViT with task-dependent sparse experts and one decoder per task."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from mtl_core.errors import ArgumentError
from mtl_core.nn import Decoded, Features, Outputs
from mtl_core.tasks import Task
from mtl_core.types import Inputs, TaskName
from mtl_vision.decoders import DecoderFactory, ProgressiveDecoder, PUPDecoder, build_decoders
from mtl_vision.decoders.blocks import Norm
from mtl_vision.encoders import MoEViT, dense_weights
from mtl_vision.networks.distillation import TaskDistillation
from mtl_vision.networks.image import ImageNetwork, image_tensor

MoEViTFactory: TypeAlias = Callable[[Sequence[TaskName]], MoEViT]
"""Builds the encoder from the names of the tasks; in a config ``class_path: MoEViT``."""


class M3ViT(ImageNetwork):
    """Task-conditioned experts in the encoder, a decoder per task (Liang et al., NeurIPS 2022).

    The encoder depends on the task, so there is no border. Asked for one task, it runs that task's
    path and decoder alone; asked for several, it computes what lies before the first router once
    and the rest as one batch. While training, the balance losses of the routers are in
    ``Outputs.aux``, and with `distillation` the tasks make further predictions from each other's
    features (`TaskDistillation`), which validation, prediction and export leave out.

    Shapes: images (B, 3, H, W) → for a dense task (B, C, H, W), otherwise (B, C). `run` keeps the
    decoders' own resolution.

    Args:
        tasks: records by name.
        encoder: `MoEViT` with its ``init_args``, without the tasks.
        decoder: of every dense task. Tasks of whole images take `mtl_core.nn.LinearDecoder`.
        decoders: exceptions by task name.
        distillation: stages of the decoders of the dense tasks, counted from 0 or from the end, at
            which tasks are distilled while training; empty: none. Needs two dense tasks, and
            decoders that work in stages.
        distillation_norm: ``batch`` or ``group``.
        start_from: checkpoint of a `HardSharing` run, or a folder of
            `mtl_core.hub.save_pretrained`, of the same ViT without experts, which the network then
            computes until it is trained. Not read when a saved network is rebuilt.
        start_decoders: take the tasks' decoders from there too; they have to be the same.

    Raises:
        ArgumentError: the dense network of `start_from` or the decoders do not fit.

    Example:
        >>> from functools import partial
        >>> from mtl_vision.tasks import DepthEstimation, SurfaceNormals
        >>> tasks = {"depth": DepthEstimation(), "normals": SurfaceNormals()}
        >>> shape = {"embed_dim": 48, "depth": 4, "num_heads": 3}
        >>> encoder = partial(MoEViT, name="vit_tiny_patch16_224", img_size=(64, 96),
        ...                   model_args=shape, num_experts=8, top_k=2)
        >>> network = M3ViT(tasks, encoder=encoder, decoder=partial(PUPDecoder, width=16)).eval()
        >>> network(torch.rand(1, 3, 64, 96), tasks=["depth"])["depth"].shape
        torch.Size([1, 1, 64, 96])
    """

    border: ClassVar[bool] = False

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        encoder: MoEViTFactory,
        decoder: DecoderFactory = PUPDecoder,
        decoders: dict[TaskName, DecoderFactory] | None = None,
        distillation: tuple[int, ...] = (),
        distillation_norm: Norm = "batch",
        start_from: Path | None = None,
        start_decoders: bool = True,
    ) -> None:
        super().__init__(tasks)
        self.encoder = encoder(tuple(self.tasks))
        self.decoders = build_decoders(self.encoder.info, self.tasks, decoder, decoders)
        self.distillation: TaskDistillation | None = None
        dense = {name: self.decoders[name] for name, task in self.tasks.items() if task.dense}
        if distillation and len(dense) > 1:
            self.distillation = TaskDistillation(
                dense, self.tasks, levels=distillation, norm=distillation_norm
            )
        if start_from is not None:
            self.load_dense(dense_weights(start_from), decoders=start_decoders)

    @torch.no_grad()
    def load_dense(self, weights: Mapping[str, Tensor], *, decoders: bool = True) -> None:
        """Start from a trained dense network, see `start_from`.

        Args:
            weights: its state dict: ``encoder.`` as `TimmEncoder` names them, ``decoders.``.
            decoders: take these too. Those of tasks that this network lacks are left out.

        Raises:
            ArgumentError: names or shapes do not fit.
        """
        prefix = "encoder."
        self.encoder.load_dense(
            {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        )
        if not decoders:
            return
        for name, decoder in self.decoders.items():
            prefix = f"decoders.{name}."
            own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            try:
                decoder.load_state_dict(own)
            except RuntimeError as error:
                rule = f"hold {name}'s decoder as it is here, or start_decoders be false ({error})"
                raise ArgumentError("start_from", rule, sorted(own)) from error

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, without distillation once it is removed."""
        arguments = super().arguments()
        if self.distillation is None:
            arguments["distillation"] = ()
        return arguments

    def remove_distillation(self) -> None:
        """Drop the modules that only training uses; predictions stay as they are."""
        self.distillation = None

    def encode(self, inputs: Inputs, tags: Mapping[str, Tensor] | None = None) -> Features:
        """Features of images (B, 3, H, W) that serve every task: of one task or one router only.

        Raises:
            ArgumentError: the features differ by task; `MoEViT.forward_tasks` gives them all.
        """
        task = next(iter(self.tasks)) if len(self.tasks) == 1 else None
        features: Features = self.encoder(image_tensor(inputs), task)
        return features

    def decode(self, features: Features, task: TaskName) -> Tensor | Decoded:
        """Raw prediction of one task from its own features."""
        decoded: Tensor | Decoded = self.decoders[task](features)
        return decoded

    def decoder_modules(self, task: TaskName) -> Sequence[nn.Module]:
        """Decoder, routers and further heads of the task.

        With distillation the losses of other tasks reach the decoder too.
        """
        heads: list[nn.Module] = []
        if self.distillation is not None and task in self.distillation.names:
            heads = self.distillation.heads(task)
        return [self.decoders[task], *self.encoder.task_modules(task), *heads]

    def run(
        self,
        inputs: Inputs,
        *,
        tasks: Sequence[TaskName] | None = None,
        tags: Mapping[str, Tensor] | None = None,
        cut: bool = False,
    ) -> Outputs:
        """Forward pass with everything a training step needs; nothing of other tasks runs.

        While tasks are distilled, further predictions of a task need the features of all of them.

        Args:
            inputs: images (B, 3, H, W).
            tasks: names to predict, None for all.
            tags: not used.
            cut: ignored, there is no border.
        """
        chosen = self.select(tasks)
        distilled = self._distilled(chosen)
        running = self.select([*chosen, *distilled])
        features = self.encoder.forward_tasks(image_tensor(inputs), running)
        out = Outputs({})
        stages: dict[TaskName, list[Tensor]] = {name: [] for name in distilled}
        for name in running:
            decoder = self.decoders[name]
            if name in stages:
                assert isinstance(decoder, ProgressiveDecoder)
                decoded = decoder(features[name], stages[name])
            else:
                decoded = self.decode(features[name], name)
            if name not in chosen:
                continue
            if isinstance(decoded, Decoded):
                out.predictions[name] = decoded.prediction
                out.intermediate[name] = decoded.intermediate
            else:
                out.predictions[name] = decoded
            for key, value in features[name].aux.items():
                out.aux[key] = out.aux[key] + value if key in out.aux else value
        if self.distillation is not None and distilled:
            for name, further in self.distillation(stages).items():
                if name in chosen:
                    out.intermediate[name] = (*out.intermediate.get(name, ()), *further)
        return out

    def _distilled(self, chosen: Sequence[TaskName]) -> tuple[TaskName, ...]:
        """Tasks whose features the chosen ones' further predictions need, none of them if none."""
        if self.distillation is None or not self.training:
            return ()
        names = self.distillation.names
        return names if any(name in names for name in chosen) else ()

    def compiled_parts(self) -> list[nn.Module]:
        """Blocks of the encoder as far as no router stands in them, and every decoder."""
        return [*self.encoder.compiled_parts(), *self.decoders.values()]
