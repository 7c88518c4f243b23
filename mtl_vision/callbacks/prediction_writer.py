"""Predictions of images as files, drawn maps included."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mtl_core.atomic import atomic_write
from mtl_core.callbacks.prediction_writer import Array, PredictionWriter, Row
from mtl_core.data import Split, Transform
from mtl_core.tasks import Task
from mtl_vision.data.files import image_size
from mtl_vision.data.transforms import DenseTransform
from mtl_vision.tasks import DenseTask, SemanticSegmentation, SurfaceNormals
from mtl_vision.visualize import draw


@runtime_checkable
class ReadsFolder(Protocol):
    """A data module that predicts on a folder of images; keys are paths below it."""

    predict: Path | None

    def transform(self, split: Split) -> Transform | None:
        """What turned an image into the network's input."""


class ImagePredictionWriter(PredictionWriter):
    """Adds pictures of dense predictions and the area of each class to `PredictionWriter`.

    A dense task's picture is ``images/NAME.TASK.png``. Maps of a folder of images have the height
    and width of the image file, others those of the network's input. The CSV names the most
    frequent class of a segmentation and its share of the pixels.

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

    def restore(
        self, trainer: L.Trainer, key: str, tasks: Mapping[str, Task], arrays: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Bring maps back to the height and width of the image file, where there is one."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by its connector
        if not isinstance(data, ReadsFolder) or data.predict is None:
            return arrays
        transform = data.transform("predict")
        if not isinstance(transform, DenseTransform):
            return arrays
        size = image_size(Path(data.predict) / key)
        restored = dict(arrays)
        for name, array in arrays.items():
            if isinstance(tasks[name], DenseTask):
                values = transform.restore(torch.from_numpy(array), size)
                if isinstance(tasks[name], SurfaceNormals):
                    values = F.normalize(values, dim=0)
                restored[name] = values.numpy()
        return restored

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
