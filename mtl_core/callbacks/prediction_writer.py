"""Predictions as files: arrays for programs, one CSV for spreadsheets."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from mtl_core.atomic import atomic_write
from mtl_core.callbacks.results import run_folder
from mtl_core.errors import ArgumentError
from mtl_core.tasks import Classification, MultiLabel, Regression, Task

Array = NDArray[Any]
Row = dict[str, str | float | int]


def summary(name: str, task: Task, array: Array) -> Row:
    """What the CSV says about one prediction.

    Classification gives class and probability, multi-label a probability per label, regression its
    values, a map its mean, least and largest value per channel.

    Args:
        name: of the task; every column starts with it.
        task: the record.
        array: activated prediction of one sample, (C,), (H, W) or (C, H, W).
    """
    match task:
        case Classification():
            best = int(array.argmax())
            label = task.class_names[best] if task.class_names else best
            return {name: label, f"{name}/probability": float(array[best])}
        case MultiLabel():
            labels = task.class_names or [str(i) for i in range(task.num_labels)]
            return {f"{name}/{k}": float(v) for k, v in zip(labels, array, strict=True)}
        case Regression(dim=1):
            return {name: float(array.reshape(()))}
        case Regression():
            return {f"{name}/{i}": float(v) for i, v in enumerate(array)}
    row: Row = {}
    channels = array[None] if array.ndim < 3 else array
    for i, channel in enumerate(channels):
        prefix = name if len(channels) == 1 else f"{name}/{i}"
        for statistic in ("mean", "min", "max"):
            row[f"{prefix}/{statistic}"] = float(getattr(channel, statistic)())
    return row


class PredictionWriter(BasePredictionWriter):
    """Writes what ``predict`` gives: arrays per sample and ``predictions.csv`` with a row a sample.

    The arrays of a sample are ``arrays/NAME.npz``, activated predictions in float32 by task name;
    ``NAME`` is the sample's key without its extension, folders kept. Under several processes each
    writes a CSV of its own, ``predictions_RANK.csv``.

    Args:
        folder: where to write; None is ``predictions`` in the run folder.
        arrays: ``npz`` (compressed), ``npy`` (one file a task, ``NAME.TASK.npy``), or ``none``.
    """

    def __init__(
        self, folder: str | None = None, *, arrays: Literal["npz", "npy", "none"] = "npz"
    ) -> None:
        if arrays not in ("npz", "npy", "none"):
            raise ArgumentError("arrays", "be npz, npy or none", arrays)
        super().__init__("batch")
        self.folder = folder
        self.arrays = arrays
        self.target = Path()
        """Folder that is written to, known from `setup` on."""
        self._rows: list[Row] = []
        self._names: set[str] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find out where to write."""
        super().setup(trainer, pl_module, stage)
        run = run_folder(trainer)
        self.target = Path(self.folder) if self.folder else run / "predictions"

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a new CSV."""
        self._rows, self._names = [], set()

    def summarize(self, name: str, task: Task, array: Array) -> Row:
        """Columns of one prediction, see `summary`; a modality may say more about its own tasks."""
        return summary(name, task, array)

    def restore(
        self, trainer: L.Trainer, key: str, tasks: Mapping[str, Task], arrays: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Bring a sample's predictions to the size of its source. Default: unchanged."""
        return arrays

    def draw(
        self, folder: Path, stem: str, tasks: Mapping[str, Task], arrays: Mapping[str, Array]
    ) -> Row:
        """Write a sample's pictures below `folder` and name them for the CSV. Default: none.

        Args:
            folder: as in `target`.
            stem: the sample's file name without extension, unique in this run.
            tasks: records by name.
            arrays: activated predictions by task.
        """
        return {}

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the samples of a batch.

        Raises:
            CheckpointWriteError: the system refused.
        """
        tasks: Mapping[str, Task] = pl_module.tasks  # type: ignore[assignment]
        held = {n: p.detach().float().cpu().numpy() for n, p in prediction["predictions"].items()}
        size = len(next(iter(held.values())))
        keys = prediction["keys"] or [f"{dataloader_idx}_{batch_idx}_{i}" for i in range(size)]
        folder = self.target
        for i, key in enumerate(keys):
            stem = self._stem(key)
            raw = {name: values[i] for name, values in held.items()}
            arrays = self.restore(trainer, key, tasks, raw)
            self._write_arrays(folder / "arrays", stem, arrays)
            row: Row = {"key": key}
            row |= self.draw(folder, stem, tasks, arrays)
            for name, array in arrays.items():
                row |= self.summarize(name, tasks[name], array)
            self._rows.append(row)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the CSV.

        Raises:
            CheckpointWriteError: the system refused.
        """
        name = "predictions" if trainer.world_size == 1 else f"predictions_{trainer.global_rank}"
        columns = list(dict.fromkeys(column for row in self._rows for column in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _short(v) for k, v in row.items()} for row in self._rows)
        with atomic_write(self.target / f"{name}.csv") as file:
            file.write(text.getvalue().encode())
        rank_zero_info(f"Wrote the predictions of {len(self._rows)} samples to {self.target}")

    def _stem(self, key: str) -> str:
        """A relative path without extension that no other sample of this run has."""
        path = Path(key or "sample")
        parts = [p for p in (*path.parts[:-1], path.stem) if p not in (path.anchor, "..")]
        stem = unique = "/".join(parts)
        count = 1
        while unique in self._names:
            count += 1
            unique = f"{stem}_{count}"
        self._names.add(unique)
        return unique

    def _write_arrays(self, folder: Path, stem: str, arrays: Mapping[str, Array]) -> None:
        match self.arrays:
            case "npz":
                with atomic_write(folder / f"{stem}.npz") as file:
                    np.savez_compressed(file, allow_pickle=False, **arrays)
            case "npy":
                for name, array in arrays.items():
                    with atomic_write(folder / f"{stem}.{name}.npy") as file:
                        np.save(file, array)


def _short(value: str | float | int) -> str | int:
    """Six significant digits are enough for a spreadsheet."""
    return f"{value:.6g}" if isinstance(value, float) else value
