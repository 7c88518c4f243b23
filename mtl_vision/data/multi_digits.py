"""`MultiDigits`: two of scikit-learn's digits overlapped; nothing to download."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from mtl_core.data.datamodule import MultiTaskDataModule, SampleDataset, Split, Transform
from mtl_core.errors import MissingTaskError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.data.pairs import PAIR_TASKS, OverlappedPairs, Sources
from mtl_vision.data.transforms import DenseTransform

_DIVISION: Mapping[Split, tuple[float, float]] = {
    "train": (0.0, 0.7),
    "val": (0.7, 0.85),
    "test": (0.85, 1.0),
    "predict": (0.85, 1.0),
}


def digits(split: Split) -> Sources:
    """Those of the 1797 digits (8x8) that belong to a split: 70, 15 and 15 %, always the same."""
    from sklearn.datasets import load_digits  # a second to import, and of no use to other data

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    first, last = (round(share * len(order)) for share in _DIVISION[split])
    chosen = np.sort(order[first:last])
    images = np.round(data.images[chosen] * (255 / 16)).astype(np.uint8)
    return Sources(images, data.target[chosen])


class MultiDigits(MultiTaskDataModule):
    """Two digits overlapped, two classification tasks ``left`` and ``right`` of 10 classes each.

    Inputs are grey images (3, s, s) with s = (8 + shift) * scale, normalised by ImageNet's
    statistics. Training, validation and test pairs come from disjoint digits (scikit-learn's, from
    Alpaydin and Kaynak, 1998); pair i of a split depends on `pair_seed` and i only.

    Args:
        tasks: the declared tasks, named ``left`` and ``right``.
        train_size: number of training pairs.
        val_size: number of validation pairs.
        test_size: number of test pairs, which are those of ``predict`` too.
        shift: pixels by which the second digit lies lower and further right; 8 separates them.
        scale: whole factor by which the canvas is enlarged.
        pair_seed: of the pairs.
        batch_size: see `MultiTaskDataModule`, likewise the others below.
        num_workers: loader processes.
        seed: of shuffling.
        on_error: has no effect, nothing is read from files of the user.
        drop_last: leave out an incomplete last training batch.
    """

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        train_size: int = 4096,
        val_size: int = 512,
        test_size: int = 512,
        shift: int = 4,
        scale: int = 2,
        pair_seed: int = 0,
        batch_size: int = 64,
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
            digits(split),
            length=self.lengths[split],
            shift=self.shift,
            scale=self.scale,
            seed=(self.pair_seed, {"train": 0, "val": 1}.get(split, 2)),
            tasks=self.tasks,
        )

    def transform(self, split: Split) -> Transform:
        """Normalisation only; a flip would change the digits and their sides."""
        side = (8 + self.shift) * self.scale
        return DenseTransform(self.tasks, size=(side, side), train=False)
