"""Seeded division of one data set into a training and a validation part."""

from collections.abc import Sequence

import numpy as np

from mtl_core.data.batch import Sample
from mtl_core.data.dataset import SampleDataset
from mtl_core.errors import ArgumentError, EmptySplitError


class SampleSubset:
    """Chosen samples of a data set, under indices of their own.

    Unlike torch's ``Subset`` it keeps the data set's declaration of tasks.

    Args:
        dataset: the whole.
        indices: the chosen ones, in the order in which they are served.
    """

    def __init__(self, dataset: SampleDataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = list(indices)
        self.tasks = getattr(dataset, "tasks", None)
        """Names that the whole declares targets for, None where it declares none."""

    def __len__(self) -> int:
        """Number of chosen samples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        """The chosen sample at position `index`."""
        return self.dataset[self.indices[index]]


def train_val_split(
    dataset: SampleDataset, *, fraction: float, seed: int = 0
) -> tuple[SampleSubset, SampleSubset]:
    """Divide a data set at random; both parts keep its order and together are the whole.

    Args:
        dataset: the whole, at least two samples.
        fraction: share of the validation part, in (0, 1), rounded to whole samples.
        seed: of the choice. The same seed, fraction and length give the same division.

    Returns:
        The training and the validation part.

    Raises:
        ArgumentError: `fraction` is outside (0, 1).
        EmptySplitError: a part would hold no sample.
    """
    if not 0 < fraction < 1:
        raise ArgumentError("fraction", "lie in (0, 1)", fraction)
    held_out = round(fraction * len(dataset))
    for split, size in (("train", len(dataset) - held_out), ("val", held_out)):
        if size < 1:
            raise EmptySplitError(split, f"{len(dataset)} samples divided at fraction {fraction}")
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    return (
        SampleSubset(dataset, sorted(order[held_out:])),
        SampleSubset(dataset, sorted(order[:held_out])),
    )
