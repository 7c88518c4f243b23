"""`NYUD`: NYUDv2 in the multi-task packing, 795 training and 654 validation images."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mtl_core.data.batch import Sample
from mtl_core.data.datamodule import Split, Transform
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.data.augmentation import Augmentation, Size
from mtl_vision.data.benchmark import BenchmarkDataModule
from mtl_vision.data.files import read_binary, read_depth, read_image, read_labels, read_normals
from mtl_vision.data.samples import FileSamples, read_names
from mtl_vision.data.transforms import DenseTransform

_MAPS: Mapping[str, tuple[str, str, Callable[[Path], Any]]] = {
    "semseg": ("segmentation", ".png", partial(read_labels, ignore=0, offset=-1)),
    "depth": ("depth", ".npy", read_depth),
    "normals": ("normals", ".png", read_normals),
    "boundary": ("edge", ".png", partial(read_binary, threshold=128)),
}


class NYUDSamples(FileSamples):
    """Samples of one list of names.

    Args:
        root: folder of the data set.
        names: of the samples.
        tasks: those of ``semseg``, ``depth``, ``normals`` and ``boundary`` to read.
        cache: keep decoded samples in memory.
    """

    def __init__(
        self, root: Path, names: list[str], tasks: Collection[str], *, cache: bool = False
    ) -> None:
        super().__init__(names, tasks, cache=cache)
        self.root = root

    def read(self, key: str) -> Sample:
        """Image and maps."""
        targets = {}
        for name in sorted(self.tasks):
            folder, suffix, read = _MAPS[name]
            targets[name] = read(self.root / folder / f"{key}{suffix}")
        return {"inputs": read_image(self.root / "images" / f"{key}.png"), "targets": targets}


class NYUD(BenchmarkDataModule):
    """NYUDv2 (Silberman et al., ECCV 2012) as packed for multi-task learning.

    Layout::

        gt_sets/{train,val}.txt   names, one a line
        images/NAME.png
        segmentation/NAME.png     0 = unlabelled, 1 to 40 = classes 0 to 39
        depth/NAME.npy            metres, 0 = unknown
        normals/NAME.png          8-bit, v = 2 p / 255 - 1
        edge/NAME.png             0 or 255

    Offered tasks: ``semseg`` (40 classes), ``depth``, ``normals``, ``boundary``. The archives of
    the two protocols hold images of different size (survey 480x640, atrc 425x560); their numbers
    are not comparable.

    The validation list is what the literature reports, so it is the test split here. Unless
    `val_fraction` is given it also is the validation split, as in the literature: then do not
    select by it.

    Args:
        tasks: the declared tasks, named as above.
        root: folder of the data set.
        recipe: transforms of the ``survey`` or the ``atrc`` protocol, see `DenseTransform.recipe`.
        size: replaces the recipe's height and width (480x640, 448x576).
        augmentation: replaces the recipe's augmentation.
        val_fraction: validate on this share of the training list, drawn with `val_seed`.
        val_seed: of that choice.
        predict: any folder of images for ``predict``.
        cache: keep decoded samples in memory.
        batch_size: see `MultiTaskDataModule`, likewise the others below.
        num_workers: loader processes.
        seed: of shuffling and augmentation.
        on_error: ``raise`` or ``skip`` unreadable files.
        drop_last: leave out an incomplete last training batch.
    """

    offered = tuple(_MAPS)

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        root: str | Path,
        recipe: Literal["survey", "atrc"] = "atrc",
        size: Size | None = None,
        augmentation: Augmentation | None = None,
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
        self.recipe: Literal["survey", "atrc"] = recipe
        self.size, self.augmentation, self.cache = size, augmentation, cache

    def labelled(self, split: Literal["train", "val"]) -> NYUDSamples:
        """Samples of an official list."""
        names = read_names(self.root / "gt_sets" / f"{split}.txt")
        return NYUDSamples(self.root, names, self.tasks, cache=self.cache)

    def transform(self, split: Split) -> Transform:
        """The recipe."""
        return DenseTransform.recipe(
            self.tasks,
            self.recipe,
            "nyud",
            train=split == "train",
            size=self.size,
            augmentation=self.augmentation,
        )
