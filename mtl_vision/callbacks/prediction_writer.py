"""Predictions of images as files, drawn maps included."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from mtl_core.atomic import atomic_write
from mtl_core.callbacks.prediction_writer import Array, PredictionWriter, Row
from mtl_core.tasks import Task
from mtl_vision.tasks import DenseTask, SemanticSegmentation
from mtl_vision.visualize import draw


class ImagePredictionWriter(PredictionWriter):
    """Adds pictures of dense predictions and the area of each class to `PredictionWriter`.

    A dense task's picture is ``images/NAME.TASK.png``, of the prediction's height and width. The
    CSV names the most frequent class of a segmentation and its share of the pixels.

    Args:
        folder: where to write; None is ``predictions`` in the run folder.
        arrays: ``npz`` (compressed), ``npy`` (one file a task), or ``none``.
        images: whether to write the pictures.
    """

    def __init__(
        self,
        folder: str | None = None,
        *,
        arrays: Literal["npz", "npy", "none"] = "npz",
        images: bool = True,
    ) -> None:
        super().__init__(folder, arrays=arrays)
        self.images = images

    def summarize(self, name: str, task: Task, array: Array) -> Row:
        """Most frequent class of a segmentation and its share; other tasks as before."""
        if not isinstance(task, SemanticSegmentation):
            return super().summarize(name, task, array)
        counts = np.bincount(array.argmax(0).ravel(), minlength=task.num_classes)
        most = int(counts.argmax())
        label = task.class_names[most] if task.class_names else most
        return {name: label, f"{name}/share": float(counts[most] / counts.sum())}

    def draw(
        self, folder: Path, stem: str, tasks: Mapping[str, Task], arrays: Mapping[str, Array]
    ) -> Row:
        """Write a picture a dense task; the CSV gets their paths below `folder`."""
        row: Row = {}
        for name, array in arrays.items():
            task = tasks[name]
            if self.images and isinstance(task, DenseTask):
                path = Path("images") / f"{stem}.{name}.png"
                buffer = io.BytesIO()
                Image.fromarray(draw(task, array)).save(buffer, format="png")
                with atomic_write(folder / path) as file:
                    file.write(buffer.getbuffer())
                row[f"{name}/image"] = path.as_posix()
        return row
