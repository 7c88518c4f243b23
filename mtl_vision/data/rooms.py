"""`Rooms`: rendered indoor scenes, generated from a seed and an index; nothing to download."""

import mmap
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtl_core.atomic import atomic_write
from mtl_core.data.batch import Sample
from mtl_core.data.datamodule import MultiTaskDataModule, Split, Transform
from mtl_core.errors import ArgumentError, UnreadableFileError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.data.augmentation import Augmentation, Size
from mtl_vision.data.boundaries import label_boundaries
from mtl_vision.data.transforms import DenseTransform
from mtl_vision.rendering import CLASS_NAMES, VERSION, Draws, render

TARGETS = ("semseg", "depth", "normals", "boundary", "saliency", "presence")
"""Names under which `Rooms` has targets."""

MEMORY = 2**30
"""Bytes of rendered samples that a split keeps in memory."""

_SPLIT_SEEDS: Mapping[Split, int] = {"train": 0, "val": 1, "test": 2, "predict": 2}

Record = NDArray[Any]


def record_type(size: Size) -> np.dtype[Any]:
    """Layout of a sample of height and width `size`: image, targets, and whether it is filled."""
    height, width = size
    return np.dtype(
        [
            ("rgb", "u1", (height, width, 3)),
            ("semseg", "u1", (height, width)),
            ("depth", "<f4", (height, width)),
            ("normals", "<f4", (height, width, 3)),
            ("boundary", "u1", (height, width)),
            ("saliency", "u1", (height, width)),
            ("presence", "u1", (len(CLASS_NAMES),)),
            ("filled", "u1"),
        ]
    )


def render_record(size: Size, scene_seed: int, split: Split, index: int) -> Record:
    """Render a sample. Equal arguments give equal bytes in any process and on any machine.

    Args:
        size: height and width.
        scene_seed: non-negative; other seeds give other scenes.
        split: no scene is in two of ``train``, ``val`` and ``test``.
        index: non-negative.

    Returns:
        An array of shape () and type `record_type`.
    """
    view = render(Draws([scene_seed, _SPLIT_SEEDS[split], index]), *size)
    record = np.zeros((), record_type(size))
    for name in ("rgb", "semseg", "depth", "normals", "saliency", "presence"):
        record[name] = getattr(view, name)
    record["boundary"] = label_boundaries(view.instance, ignore=None)
    record["filled"] = 1
    return record


class RoomsDataset:
    """Samples of one split.

    Args:
        size: height and width.
        scene_seed: which scenes.
        split: which of them.
        length: number of samples.
        targets: names out of `TARGETS` that samples carry.
        memory: bytes for rendered samples, shared by all processes forked from this one; a sample
            is rendered once and kept while it fits.
        file: read samples from here instead; written first if it does not exist.
    """

    tasks = TARGETS

    def __init__(
        self,
        size: Size,
        scene_seed: int,
        *,
        split: Split,
        length: int,
        targets: tuple[str, ...] = TARGETS,
        memory: int = 0,
        file: Path | None = None,
    ) -> None:
        self.size, self.scene_seed, self.split, self.length = size, scene_seed, split, length
        self.targets = targets
        self._kept = 0 if file is not None else min(length, memory // record_type(size).itemsize)
        self._file = file
        self._records = self._open()

    def _open(self) -> Record | None:
        kind = record_type(self.size)
        if self._file is not None:
            if not self._file.exists():
                self._write(self._file)
            try:
                records: Record = np.load(self._file, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise UnreadableFileError(self._file, error) from error
            if records.dtype != kind or records.shape != (self.length,):
                raise UnreadableFileError(self._file, "it holds something else")
            return records
        if not self._kept:
            return None
        # Anonymous shared memory: loader processes fill it for one another and for later epochs.
        shared: Record = np.frombuffer(mmap.mmap(-1, self._kept * kind.itemsize), kind)
        return shared

    def _write(self, path: Path) -> None:
        layout = np.lib.format.header_data_from_array_1_0(np.empty(0, record_type(self.size)))
        with atomic_write(path) as file:
            np.lib.format.write_array_header_1_0(file, {**layout, "shape": (self.length,)})
            for index in range(self.length):
                file.write(render_record(self.size, self.scene_seed, self.split, index).tobytes())

    def __getstate__(self) -> dict[str, Any]:
        """All but the samples: a spawned process starts with memory of its own."""
        return {**self.__dict__, "_records": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._records = self._open()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Sample `index` in 0..length-1, in arrays of its own."""
        if not 0 <= index < self.length:
            raise IndexError(f"index must lie in 0..{self.length - 1}, found {index}")
        record = self._record(index)
        return {
            "inputs": np.array(record["rgb"]),
            "targets": {name: np.array(record[name]) for name in self.targets},
            "key": f"{self.split}-{index:06d}",
        }

    def _record(self, index: int) -> Record:
        records = self._records
        if records is not None and index < len(records) and records[index]["filled"]:
            stored: Record = records[index]
            return stored
        record = render_record(self.size, self.scene_seed, self.split, index)
        if records is not None and index < len(records):
            # Two processes may do this at once, with the same bytes. The mark comes last.
            for name in record.dtype.names or ():
                records[name][index] = record[name]
        return record


class Rooms(MultiTaskDataModule):
    """Rendered furnished rooms with exact labels, from a seed; the default data of the suite.

    Every scene has its own room, furniture, camera, lights and materials. Colours and patterns are
    drawn without regard to the class of a surface, so that colour alone tells little; shape,
    position and context tell. Targets are offered under these names:

    | name | target |
    |---|---|
    | ``semseg`` | (H, W) uint8, one of the 13 `CLASS_NAMES`; no pixel is unlabelled |
    | ``depth`` | (H, W) float32, metres along the optical axis (z-depth), about 0.4 to 8 |
    | ``normals`` | (H, W, 3) float32 unit vectors, x right, y up, z towards the camera |
    | ``boundary`` | (H, W) uint8, 1 where things, walls, floor or ceiling meet, one pixel thin |
    | ``saliency`` | (H, W) uint8, 1 on the standing thing that fills most of the image's middle |
    | ``presence`` | (13,) uint8, 1 for classes that cover at least 0.2 % of the pixels |

    Pixels show the surface that the ray through their centre meets first. ``presence`` is that of
    the whole image, whatever part of it an augmentation keeps.

    Args:
        tasks: the declared tasks, named as above.
        size: height and width of images, at least 8 each.
        train_size: number of training samples.
        val_size: number of validation samples.
        test_size: number of test samples, which are also those of ``predict``.
        scene_seed: of the scenes. Apart from `seed`, so that runs with several seeds share one data
            set.
        augmentation: of training samples; left-right flips and mild changes of colour by default.
        cache: keep rendered samples, up to `MEMORY` bytes a split.
        cache_dir: keep them in files in this folder instead, for later runs as well.
        batch_size: samples per process and step.
        num_workers: loader processes; 0 loads in the main process.
        seed: of shuffling and augmentation.
        on_error: see `MultiTaskDataModule`; rendering reads no files.
        drop_last: leave out the last training batch if it is incomplete.

    Raises:
        ArgumentError: a size or seed is out of range.
        MissingTaskError: in `setup`, a task is not named as above.
        UnreadableFileError: in `setup`, a file in `cache_dir` is damaged.
        CheckpointWriteError: in `prepare_data`, a file in `cache_dir` cannot be written.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        size: Size = (96, 96),
        train_size: int = 1024,
        val_size: int = 128,
        test_size: int = 128,
        scene_seed: int = 0,
        augmentation: Augmentation | None = None,
        cache: bool = True,
        cache_dir: Path | str | None = None,
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
        if len(size) != 2 or min(size) < 8:
            raise ArgumentError("size", "be a height and width of at least 8", size)
        if scene_seed < 0:
            raise ArgumentError("scene_seed", "be at least 0", scene_seed)
        self.size: Size = (int(size[0]), int(size[1]))
        self.lengths: dict[Split, int] = {
            "train": train_size,
            "val": val_size,
            "test": test_size,
            "predict": test_size,
        }
        for split, length in self.lengths.items():
            if length < 0:
                raise ArgumentError(f"{split}_size", "be at least 0", length)
        self.scene_seed = scene_seed
        self.augmentation = augmentation or Augmentation(flip=0.5, color=0.4)
        self.cache = cache
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def prepare_data(self) -> None:
        """Write the files of `cache_dir` that are missing, once per machine."""
        if self.cache_dir is not None:
            for split in ("train", "val", "test"):
                if self.lengths[split]:
                    self.dataset(split)

    def dataset(self, split: Split) -> RoomsDataset:
        """The samples of a split."""
        return RoomsDataset(
            self.size,
            self.scene_seed,
            split=split,
            length=self.lengths[split],
            targets=tuple(name for name in TARGETS if name in self.tasks),
            memory=MEMORY if self.cache else 0,
            file=None if self.cache_dir is None else self.cache_dir / self._file_name(split),
        )

    def _file_name(self, split: Split) -> str:
        """Depends on what is in the file: version, size, seed, split, length."""
        content = (VERSION, self.size, self.scene_seed, _SPLIT_SEEDS[split], self.lengths[split])
        return f"rooms-{sha256(repr(content).encode()).hexdigest()[:16]}.npy"

    def transform(self, split: Split) -> Transform:
        """Augmentation (training only) and normalisation by ImageNet's statistics."""
        return DenseTransform(
            self.tasks,
            size=self.size,
            train=split == "train",
            normals_y="up",
            **asdict(self.augmentation),
        )
