"""`ImageFolderTasks`: images of your own, with a folder or a CSV column for each task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mtl_core.data.batch import Sample
from mtl_core.data.datamodule import MultiTaskDataModule, SampleDataset, Split, Transform
from mtl_core.data.split import train_val_split
from mtl_core.errors import ArgumentError, LabelError, MissingTaskError, UnknownNameError
from mtl_core.tasks.base import Task
from mtl_core.tasks.multilabel import MultiLabel
from mtl_core.types import TaskName
from mtl_vision.data.augmentation import Augmentation, Fit, Size
from mtl_vision.data.boundaries import label_boundaries
from mtl_vision.data.files import IMAGE_SUFFIXES, read_image
from mtl_vision.data.samples import FileSamples, ImageFolder, list_files
from mtl_vision.data.targets import (
    TargetSource,
    check_sources,
    class_presence,
    read_map,
    read_table,
)
from mtl_vision.data.transforms import DenseTransform

_SPLITS = {"train": "train", "val": "val", "test": "test"}


class FolderSamples(FileSamples):
    """One split: the images of a folder, and for each target its map files or table.

    Args:
        root: the data set's folder.
        split: what ``{split}`` stands for.
        images: folder of images below `root`.
        targets: source of every target.
        tasks: the declared tasks.
        cache: keep decoded samples in memory.

    Raises:
        ArgumentError: a folder or file is missing, two files have one name, or a map has no image.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        images: str,
        targets: Mapping[TaskName, TargetSource],
        tasks: Mapping[TaskName, Task],
        cache: bool = False,
    ) -> None:
        self.root, self.declared = root, dict(tasks)
        self.targets = {name: targets[name] for name in tasks}
        folder = root / images.format(split=split)
        self.images = _by_stem(folder, IMAGE_SUFFIXES, "images")
        # A derived target needs its source's files, be its task declared or not.
        needed = dict(self.targets)
        needed |= {t.source: targets[t.source] for t in self.targets.values() if t.source}
        self.maps: dict[str, dict[str, Path]] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        for name, source in needed.items():
            if source.folder is not None:
                self.maps[name] = self._find_maps(name, source, split)
            elif source.csv is not None:
                path = root / source.csv.format(split=split)
                self.tables[name] = self._find_rows(name, source, path)
        self._sources = needed
        super().__init__(list(self.images), tasks, cache=cache)

    def _find_maps(self, name: str, source: TargetSource, split: str) -> dict[str, Path]:
        folder = self.root / (source.folder or "").format(split=split)
        found = _by_stem(folder, (*IMAGE_SUFFIXES, ".npy"), f"folder of target {name!r}")
        maps: dict[str, Path] = {}
        strangers = []
        for stem, path in found.items():
            image = stem.removesuffix(source.suffix)
            if not stem.endswith(source.suffix) or image not in self.images:
                strangers.append(stem)
            maps[image] = path
        if strangers:
            example = next(iter(self.images), "NAME")
            rule = f"hold only maps of images, such as {example + source.suffix!r}"
            raise ArgumentError(f"folder {folder} of target {name!r}", rule, strangers[:3])
        return maps

    def _find_rows(self, name: str, source: TargetSource, path: Path) -> dict[str, Any]:
        rows = read_table(path, source, self.declared[name], name)
        table: dict[str, Any] = {}
        for stem, image in self.images.items():
            for key in (stem, f"{stem}{image.suffix}"):
                if key in rows:
                    table[stem] = rows[key]
        if not table:
            example = next(iter(self.images), "NAME")
            rule = f"name images such as {example!r} in column {source.name_column!r}"
            raise ArgumentError(f"csv {path} of target {name!r}", rule, list(rows)[:3])
        return table

    def read(self, key: str) -> Sample:
        """The image and those of its targets that exist."""
        labels = {
            name: read_map(self._sources[name], self.declared.get(name), maps[key])
            for name, maps in self.maps.items()
            if key in maps
        }
        targets: dict[TaskName, Any] = {}
        for name, target in self.targets.items():
            if target.derive is not None:
                if target.source in labels:
                    targets[name] = self._derive(name, target, labels[target.source], key)
            elif name in labels:
                targets[name] = labels[name]
            elif key in self.tables.get(name, {}):
                targets[name] = self.tables[name][key]
        return {"inputs": read_image(self.images[key]), "targets": targets}

    def _derive(self, name: str, target: TargetSource, labels: Any, key: str) -> Any:
        if target.derive == "boundaries":
            return label_boundaries(labels)
        task = self.declared[name]
        if not isinstance(task, MultiLabel):
            raise LabelError(name, "be multi-label to hold class presence", type(task).__name__)
        return class_presence(
            labels, task.num_labels, task=name, key=key, min_share=target.min_share
        )


class ImageFolderTasks(MultiTaskDataModule):
    """Images in folders, each task in a folder of maps, a CSV column, or derived from other labels.

    The layout is free; this one is CamVid's::

        root: data/camvid
        images: "{split}/image"
        targets:
          semseg: {folder: "{split}/label", ignore: 11}
          boundary: {derive: boundaries, source: semseg}
          presence: {derive: presence, source: semseg}

    A map has the name of its image, the extension apart; sub-folders are followed. How it is read
    depends on its task: classes, yes/no maps, depth (8 or 16-bit PNG times `scale`, or ``.npy``) or
    normals (8-bit RGB, or ``.npy``). An image whose map or row is absent is unlabelled for that
    task. `targets` may describe more than the declared tasks.

    Args:
        tasks: the declared tasks.
        root: folder of the data set.
        images: folder of images below `root`; ``{split}`` stands for the split's folder.
        targets: source of each task's targets, by task name.
        splits: folder names of ``train``, ``val`` and ``test``; by default those names. The same
            folder may serve twice (``test: val``).
        val_fraction: validate on this share of the training folder, drawn with `val_seed`, instead
            of a folder of its own. Training then leaves it out.
        val_seed: of that choice.
        predict: any folder of images for ``predict``; keys are paths relative to it.
        size: height and width of network inputs; None keeps those of the files, which then have to
            be equal.
        augmentation: of training samples; none by default.
        fit: ``resize`` or ``pad``, see `DenseTransform`.
        normals_y: see `DenseTransform`.
        cache: keep decoded samples in memory.
        batch_size: see `MultiTaskDataModule`, likewise the others below.
        num_workers: loader processes.
        seed: of shuffling and augmentation.
        on_error: ``raise`` or ``skip`` unreadable files.
        drop_last: leave out an incomplete last training batch.

    Raises:
        MissingTaskError: a declared task has no entry in `targets`.
        ArgumentError: a folder or file is missing, or names do not match; see `FolderSamples`.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        root: str | Path,
        targets: dict[str, TargetSource],
        images: str = "{split}/image",
        splits: dict[str, str] | None = None,
        val_fraction: float | None = None,
        val_seed: int = 0,
        predict: str | Path | None = None,
        size: Size | None = None,
        augmentation: Augmentation | None = None,
        fit: Fit = "resize",
        normals_y: Literal["down", "up"] = "down",
        cache: bool = False,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            tasks,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            on_error=on_error,
            drop_last=drop_last,
        )
        self.root = Path(root)
        self.images, self.targets = images, dict(targets)
        for name in self.tasks:
            if name not in self.targets:
                raise MissingTaskError(name, self.targets, f"the targets of {type(self).__name__}")
        check_sources(self.targets, self.tasks)
        for split in splits or {}:
            if split not in _SPLITS:
                raise UnknownNameError("splits", split, _SPLITS)
        self.splits = dict(_SPLITS if splits is None else splits)
        self.val_fraction, self.val_seed = val_fraction, val_seed
        self.predict = None if predict is None else Path(predict)
        self.size = size
        self.augmentation = augmentation or Augmentation()
        self.fit: Fit = fit
        self.normals_y: Literal["down", "up"] = normals_y
        self.cache = cache

    def dataset(self, split: Split) -> SampleDataset:
        """The files of a split."""
        if split == "predict":
            if self.predict is None:
                raise ArgumentError("predict", "name a folder of images", None)
            return ImageFolder(self.predict)
        if self.val_fraction is not None and split in ("train", "val"):
            parts = train_val_split(
                self._folder("train"), fraction=self.val_fraction, seed=self.val_seed
            )
            return parts[split == "val"]
        return self._folder(split)

    def _folder(self, split: str) -> FolderSamples:
        known = self.splits.get(split)
        if known is None or not (self.root / self.images.format(split=known)).is_dir():
            rule = f"name an existing folder for {split!r} (splits: {{{split}: FOLDER}})"
            place = None if known is None else str(self.root / self.images.format(split=known))
            raise ArgumentError("splits", rule, place)
        return FolderSamples(
            self.root,
            known,
            images=self.images,
            targets=self.targets,
            tasks=self.tasks,
            cache=self.cache,
        )

    def transform(self, split: Split) -> Transform:
        """`DenseTransform` with this module's settings."""
        return DenseTransform.from_augmentation(
            self.tasks,
            self.augmentation,
            size=self.size,
            train=split == "train",
            fit=self.fit,
            normals_y=self.normals_y,
        )


def _by_stem(folder: Path, suffixes: tuple[str, ...], argument: str) -> dict[str, Path]:
    """Files below a folder by relative path without extension."""
    found: dict[str, Path] = {}
    for path in list_files(folder, suffixes, argument=argument):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            rule = "hold one file of a name, whatever its extension"
            raise ArgumentError(str(folder), rule, [found[stem].name, path.name])
        found[stem] = path
    return found
