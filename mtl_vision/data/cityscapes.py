"""`Cityscapes`: street scenes with classes and depth from stereo."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_core.data.batch import Sample
from mtl_core.data.datamodule import Split, Transform
from mtl_core.errors import ArgumentError, UnreadableFileError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.data.augmentation import Augmentation, Fit, Size
from mtl_vision.data.benchmark import BenchmarkDataModule
from mtl_vision.data.files import read_image, read_values
from mtl_vision.data.samples import FileSamples, list_files
from mtl_vision.data.transforms import DenseTransform
from mtl_vision.tasks.segmentation import SemanticSegmentation

BASELINE = 0.209313
"""Distance of the two cameras in metres."""
FOCAL_LENGTH = 2262.52
"""Horizontal focal length in pixels of the full 1024x2048 images."""

_TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# First and last id of flat, construction, object, nature, sky, human and vehicle.
_CATEGORIES = ((7, 10), (11, 16), (17, 20), (21, 22), (23, 23), (24, 25), (26, 33))
_ENDINGS = {"semseg": ("gtFine", "gtFine_labelIds"), "depth": ("disparity", "disparity")}


def class_table(num_classes: int) -> NDArray[np.uint8]:
    """Class of each of the 256 stored label ids: 19 evaluated classes or 7 categories, else 255.

    The 19 are the benchmark's train ids (Cordts et al., CVPR 2016); the 7 its categories without
    void, as MTAN (Liu et al., CVPR 2019) and the optimisation literature use them.
    """
    table = np.full(256, 255, np.uint8)
    if num_classes == 19:
        table[list(_TRAIN_IDS)] = np.arange(19)
    elif num_classes == 7:
        for category, (first, last) in enumerate(_CATEGORIES):
            table[first : last + 1] = category
    else:
        raise ArgumentError("num_classes of semseg", "be 19 or 7 on Cityscapes", num_classes)
    return table


def disparity_to_depth(stored: NDArray[np.integer]) -> NDArray[np.float32]:
    """Depth in metres of stored disparities, (H, W) float32, 0 where unknown.

    A stored p > 0 is the disparity ``d = (p - 1) / 256`` in pixels, 0 is unknown; depth is
    ``BASELINE * FOCAL_LENGTH / d``. A disparity of 0, which lies at infinity, is unknown too.
    """
    disparity = (stored.astype(np.float32) - 1) / 256
    known = disparity > 0
    depth = BASELINE * FOCAL_LENGTH / np.where(known, disparity, 1)
    return np.where(known, depth, 0).astype(np.float32)


class CityscapesSamples(FileSamples):
    """Samples of one part.

    Args:
        root: folder of the data set.
        split: ``train`` or ``val``.
        tasks: those of ``semseg`` and ``depth`` to read.
        num_classes: 19 or 7.
        cache: keep decoded samples in memory.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        tasks: Collection[str],
        *,
        num_classes: int = 19,
        cache: bool = False,
    ) -> None:
        folder = root / "leftImg8bit" / split
        paths = list_files(folder, (".png",), argument="root")
        keys = [p.relative_to(folder).as_posix() for p in paths]
        ending = "_leftImg8bit.png"
        names = [key.removesuffix(ending) for key in keys if key.endswith(ending)]
        super().__init__(names, tasks, cache=cache)
        self.root, self.split = root, split
        self._classes = class_table(num_classes)

    def read(self, key: str) -> Sample:
        """Image and maps; the key is ``CITY/NAME``."""
        targets = {name: self._map(name, key) for name in sorted(self.tasks)}
        path = self.root / "leftImg8bit" / self.split / f"{key}_leftImg8bit.png"
        return {"inputs": read_image(path), "targets": targets}

    def _map(self, name: str, key: str) -> NDArray[np.uint8] | NDArray[np.float32]:
        folder, ending = _ENDINGS[name]
        path = self.root / folder / self.split / f"{key}_{ending}.png"
        stored = read_values(path)
        if name == "depth":
            return disparity_to_depth(stored)
        if stored.dtype != np.uint8:
            raise UnreadableFileError(path, f"label ids must be 8 bits, found {stored.dtype}")
        return self._classes[stored]


class Cityscapes(BenchmarkDataModule):
    """Cityscapes (Cordts et al., CVPR 2016), 2975 training and 500 validation images.

    Layout::

        leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png
        gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png
        disparity/{train,val}/CITY/NAME_disparity.png         16-bit

    Offered tasks: ``semseg`` (19 classes or 7 categories, by the task's ``num_classes``) and
    ``depth`` in metres, see `disparity_to_depth`. Much of the literature regresses disparity
    instead; its errors are not comparable.

    Test labels are not public: the validation part is the test split, and the validation split too
    unless `val_fraction` is given.

    Args:
        tasks: the declared tasks, named as above.
        root: folder of the data set.
        size: height and width of network inputs. The default is a quarter of the images', MTAN's
            being (128, 256).
        augmentation: of training samples; by default flips with probability 0.5.
        fit: ``resize`` or ``pad``, see `DenseTransform`.
        val_fraction: validate on this share of the training part, drawn with `val_seed`.
        val_seed: of that choice.
        predict: any folder of images for ``predict``.
        cache: keep decoded samples in memory.
        batch_size: see `MultiTaskDataModule`, likewise the others below.
        num_workers: loader processes.
        seed: of shuffling and augmentation.
        on_error: ``raise`` or ``skip`` unreadable files.
        drop_last: leave out an incomplete last training batch.
    """

    offered = tuple(_ENDINGS)

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        root: str | Path,
        size: Size | None = (256, 512),
        augmentation: Augmentation | None = None,
        fit: Fit = "resize",
        val_fraction: float | None = None,
        val_seed: int = 0,
        predict: str | Path | None = None,
        cache: bool = False,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            tasks,
            root=root,
            val_fraction=val_fraction,
            val_seed=val_seed,
            predict=predict,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            on_error=on_error,
            drop_last=drop_last,
        )
        self.size, self.cache = size, cache
        self.fit: Fit = fit
        self.augmentation = augmentation or Augmentation(flip=0.5)
        semseg = self.tasks.get("semseg")
        self.num_classes = 19
        if isinstance(semseg, SemanticSegmentation):
            self.num_classes = semseg.num_classes
        class_table(self.num_classes)

    def labelled(self, split: Literal["train", "val"]) -> CityscapesSamples:
        """Samples of an official part."""
        return CityscapesSamples(
            self.root, split, self.tasks, num_classes=self.num_classes, cache=self.cache
        )

    def transform(self, split: Split) -> Transform:
        """`DenseTransform` with this module's settings."""
        return DenseTransform.from_augmentation(
            self.tasks, self.augmentation, size=self.size, train=split == "train", fit=self.fit
        )
