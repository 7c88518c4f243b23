"""Two small grey images overlapped: the classic two-task image (MultiMNIST)."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_core.data.batch import Sample
from mtl_core.errors import ArgumentError

PAIR_TASKS = ("left", "right")
"""``left`` is the class at the top left, ``right`` that at the bottom right."""


class Sources(NamedTuple):
    """Images to draw from."""

    images: NDArray[np.uint8]
    """(N, h, w), bright on black."""
    labels: NDArray[np.integer]
    """(N,)."""


class OverlappedPairs:
    """Pairs drawn from a pool, one at the top left of a canvas and one at the bottom right.

    Where both are bright the brighter counts (Sabour et al., "Dynamic routing between capsules",
    NeurIPS 2017; Sener and Koltun, "Multi-task learning as multi-objective optimization", NeurIPS
    2018). Pair i depends on the seed and i only.

    Args:
        sources: the pool.
        length: number of pairs.
        shift: pixels by which the second lies lower and further right.
        scale: whole factor by which the canvas is enlarged.
        seed: of the draws; one per split.
        tasks: those of `PAIR_TASKS` to give.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        length: int,
        shift: int,
        scale: int,
        seed: tuple[int, ...],
        tasks: Collection[str],
    ) -> None:
        for name, value in (("length", length), ("shift", shift)):
            if value < 0:
                raise ArgumentError(name, "be at least 0", value)
        if scale < 1:
            raise ArgumentError("scale", "be at least 1", scale)
        self.sources, self.shift, self.scale, self.seed = sources, shift, scale, seed
        self.length, self.tasks = length, frozenset(tasks)

    def __len__(self) -> int:
        """Number of pairs."""
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Pair `index`: (H, W, 3) uint8 grey image and the two classes."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng((*self.seed, index))
        first, second = rng.integers(len(self.sources.labels), size=2)
        image = overlap(self.sources.images[first], self.sources.images[second], self.shift)
        image = image.repeat(self.scale, 0).repeat(self.scale, 1)
        labels = self.sources.labels
        classes = {"left": int(labels[first]), "right": int(labels[second])}
        return {
            "inputs": np.repeat(image[..., None], 3, axis=2),
            "targets": {name: value for name, value in classes.items() if name in self.tasks},
            "key": f"{first}+{second}",
        }


def overlap(first: NDArray[np.uint8], second: NDArray[np.uint8], shift: int) -> NDArray[np.uint8]:
    """Brighter of two images (h, w), the second moved by `shift`: (h + shift, w + shift)."""
    canvas = np.pad(first, (0, shift))
    return np.maximum(canvas, np.pad(second, (shift, 0)))
