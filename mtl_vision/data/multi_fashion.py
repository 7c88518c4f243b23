"""`MultiFashion`: two garments overlapped, from the files of Fashion-MNIST."""

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtl_core.data.datamodule import MultiTaskDataModule, SampleDataset, Split, Transform
from mtl_core.errors import ArgumentError, MissingTaskError, UnreadableFileError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.data.pairs import PAIR_TASKS, OverlappedPairs, Sources
from mtl_vision.data.transforms import DenseTransform

DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist puts the files."""

_HELD_OUT = 10000


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes, plain or gzipped (``.gz``).

    Raises:
        UnreadableFileError: truncated, corrupt, or of another type.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError(path, error) from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise UnreadableFileError(path, "it is no IDX file of unsigned bytes")
    axes = data[3]
    start = 4 * (axes + 1)
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">u4"))
    if len(shape) != axes or len(data) != start + int(np.prod(shape)):
        raise UnreadableFileError(path, f"{len(data)} bytes do not hold shape {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def garments(root: Path, part: Literal["train", "t10k"]) -> Sources:
    """Images (N, 28, 28) and labels of a part, below `root` or its ``FashionMNIST/raw``.

    Raises:
        ArgumentError: the files are not there.
        UnreadableFileError: a file is damaged, or the two differ in length.
    """
    images_path = _find(root, f"{part}-images-idx3-ubyte")
    labels_path = _find(root, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        found = f"{labels.shape} labels for images {images.shape}"
        raise UnreadableFileError(labels_path, f"there must be a label per image: {found}")
    return Sources(images, labels)


def _find(root: Path, name: str) -> Path:
    for folder in (root, root / "FashionMNIST" / "raw", root / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    rule = f"hold {name} or {name}.gz, itself or in FashionMNIST/raw"
    raise ArgumentError("root", rule, str(root))


class MultiFashion(MultiTaskDataModule):
    """Two garments overlapped, two classification tasks ``left`` and ``right`` of 10 classes each.

    Inputs are grey images (3, s, s) with s = (28 + shift) * scale, normalised by ImageNet's
    statistics. Training pairs come from the first 50 000 images of Fashion-MNIST (Xiao, Rasul and
    Vollgraf, 2017), validation pairs from the other 10 000 of its training part (fewer, in
    proportion, if the files hold fewer), test pairs from its test part.

    Args:
        tasks: the declared tasks, named ``left`` and ``right``.
        root: folder of the four IDX files, plain or gzipped: itself, or torchvision's folder above
            ``FashionMNIST/raw``. The default is where Debian's package puts them.
        train_size: number of training pairs.
        val_size: number of validation pairs.
        test_size: number of test pairs, which are those of ``predict`` too.
        shift: pixels by which the second garment lies lower and further right; 8 gives the usual
            36x36.
        scale: whole factor by which the canvas is enlarged.
        pair_seed: of the pairs.
        batch_size: see `MultiTaskDataModule`, likewise the others below.
        num_workers: loader processes.
        seed: of shuffling.
        on_error: has no effect, the files are read as a whole.
        drop_last: leave out an incomplete last training batch.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        root: str | Path = DEBIAN_FOLDER,
        train_size: int = 50000,
        val_size: int = 10000,
        test_size: int = 10000,
        shift: int = 8,
        scale: int = 1,
        pair_seed: int = 0,
        batch_size: int = 256,
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
        for name in self.tasks:
            if name not in PAIR_TASKS:
                raise MissingTaskError(name, PAIR_TASKS, type(self).__name__)
        self.root = Path(root)
        self.lengths: Mapping[Split, int] = {
            "train": train_size,
            "val": val_size,
            "test": test_size,
            "predict": test_size,
        }
        self.shift, self.scale, self.pair_seed = shift, scale, pair_seed

    def dataset(self, split: Split) -> SampleDataset:
        """The pairs of a split."""
        return OverlappedPairs(
            self._sources(split),
            length=self.lengths[split],
            shift=self.shift,
            scale=self.scale,
            seed=(self.pair_seed, {"train": 0, "val": 1}.get(split, 2)),
            tasks=self.tasks,
        )

    def _sources(self, split: Split) -> Sources:
        if split in ("test", "predict"):
            return garments(self.root, "t10k")
        images, labels = garments(self.root, "train")
        kept = len(labels) - min(_HELD_OUT, len(labels) // 6)
        part = slice(kept) if split == "train" else slice(kept, None)
        return Sources(images[part], labels[part])

    def transform(self, split: Split) -> Transform:
        """Normalisation only; a flip would change sides."""
        side = (28 + self.shift) * self.scale
        return DenseTransform(self.tasks, size=(side, side), train=False)
