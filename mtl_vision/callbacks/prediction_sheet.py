"""Pictures of the first validation samples with targets and predictions, during training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from mtl_core.callbacks.curves import save_figure
from mtl_core.callbacks.results import run_folder
from mtl_core.data.batch import Batch
from mtl_core.errors import ArgumentError
from mtl_core.modules.objective import label_mask
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.sheet import draw_sheet
from mtl_vision.tasks import IGNORE
from mtl_vision.visualize import Array, Picture, to_array


class PredictionSheet(L.Callback):
    """Writes a prediction sheet of the first samples of validation and test.

    Files, in the folder ``sheets`` of the run: ``epoch_XXX.png`` and ``last.png`` after validation
    (within a fit every `every_n_epochs` epochs and after the last one), ``test.png`` after a test.
    Only the first process draws, of the samples that it sees. Nothing is drawn in the sanity check,
    under ``fast_dev_run``, or of inputs that are no images.

    Args:
        samples: rows of a sheet.
        every_n_epochs: epochs from one sheet to the next.
        mean: of the RGB channels, as subtracted from the inputs; default: ImageNet's.
        std: of the RGB channels, as the inputs were divided by.
    """

    def __init__(
        self,
        samples: int = 4,
        *,
        every_n_epochs: int = 1,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        if samples < 1:
            raise ArgumentError("samples", "be at least 1", samples)
        if every_n_epochs < 1:
            raise ArgumentError("every_n_epochs", "be at least 1", every_n_epochs)
        if min(std) <= 0:
            raise ArgumentError("std", "be positive", std)
        self.samples = samples
        self.every_n_epochs = every_n_epochs
        self.mean = mean
        self.std = std
        self._tasks: dict[TaskName, Task] = {}
        self._folder = Path()
        self._forget()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the tasks and the folder; all processes have to ask for it together."""
        self._tasks = dict(pl_module.tasks)  # type: ignore[arg-type]
        self._folder = run_folder(trainer) / "sheets"

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start anew."""
        self._forget()

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start anew."""
        self._forget()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the samples that are still wanted."""
        if due(trainer, self.every_n_epochs):
            self._collect(outputs["predictions"], batch)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the samples that are still wanted."""
        if due(trainer, self.every_n_epochs):
            self._collect(outputs["predictions"], batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the sheet."""
        self._write(
            f"validation, epoch {trainer.current_epoch}", f"epoch_{trainer.current_epoch:03}"
        )

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the sheet."""
        self._write("test", "test")

    def _forget(self) -> None:
        self._images: list[Picture] = []
        self._targets: dict[TaskName, list[Array | None]] = {name: [] for name in self._tasks}
        self._predictions: dict[TaskName, list[Array | None]] = {name: [] for name in self._tasks}

    def _collect(self, predictions: Mapping[TaskName, Tensor], batch: Batch) -> None:
        """Add the first samples of a batch, on the CPU."""
        inputs = batch["inputs"]
        if not isinstance(inputs, Tensor) or inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
            return
        count = min(self.samples - len(self._images), len(inputs))
        if count < 1:
            return
        self._images += [to_picture(image, self.mean, self.std) for image in inputs[:count]]
        for name, task in self._tasks.items():
            columns = self._targets[name], self._predictions[name]
            target = _shown_target(task, name, batch)
            columns[0].extend(target[:count] if target is not None else [None] * count)
            raw = predictions.get(name)
            if raw is None:
                columns[1].extend([None] * count)
                continue
            reference = batch["targets"][name] if target is not None else inputs
            matched = task.match(raw[:count].detach().float(), reference)
            columns[1].extend(to_array(task.activate(matched)))

    def _write(self, title: str, stem: str) -> None:
        """Draw what was kept, if anything."""
        if not self._images:
            return
        sheet = draw_sheet(self._images, self._targets, self._predictions, self._tasks, title=title)
        save_figure(sheet, self._folder / f"{stem}.png")
        if stem != "test":
            save_figure(sheet, self._folder / "last.png")
        self._forget()


def due(trainer: L.Trainer, every_n_epochs: int) -> bool:
    """Whether this process draws in this validation or test.

    Args:
        trainer: that is running.
        every_n_epochs: within a fit; the last epoch is always drawn.
    """
    quick = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
    if quick or trainer.sanity_checking or not trainer.is_global_zero:
        return False
    if trainer.state.fn != "fit":
        return True
    done = trainer.current_epoch + 1
    return done % every_n_epochs == 0 or done == trainer.max_epochs


def to_picture(
    image: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Picture:
    """Normalised (3, H, W) → (H, W, 3) uint8; one channel is stretched to full contrast.

    Args:
        image: on any device.
        mean: of the RGB channels, as subtracted.
        std: of the RGB channels, as divided by.
    """
    values = image.detach().float().cpu()
    if len(values) == 3:
        values = values * torch.tensor(std)[:, None, None]
        values = values + torch.tensor(mean)[:, None, None]
    else:
        values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-6)
    levels = (values * 255).round().clamp(0, 255).byte().expand(3, -1, -1)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def _shown_target(task: Task, name: TaskName, batch: Batch) -> list[Array | None] | None:
    """Targets by sample, with what does not count marked as unlabelled; None without targets."""
    target = batch["targets"].get(name)
    if target is None:
        return None
    mask = label_mask(task, name, batch)
    if task.dense:
        shape = (len(mask), *[1] * (target.ndim - mask.ndim), *mask.shape[1:])
        unknown = 0 if target.is_floating_point() else IGNORE
        target = torch.where(mask.view(shape), target, unknown)
    labelled = batch.get("labelled", {}).get(name)
    return [
        None if labelled is not None and not bool(labelled[i]) else array
        for i, array in enumerate(to_array(target))
    ]
