"""Samples as the network gets them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from mtl_core.data.dataset import SplitDataset, check_sizes, offered_tasks
from mtl_core.errors import SampleSizeError, UnreadableFileError
from mtl_core.tasks import Classification, Regression


@dataclass(frozen=True, kw_only=True)
class Map(Classification):
    """A dense task."""

    dense: ClassVar[bool] = True


TASKS = {"map": Map(num_classes=2), "level": Regression()}


def view(samples, **options):
    defaults = {
        "split": "train",
        "tasks": TASKS,
        "transform": None,
        "seed": 0,
        "on_error": "raise",
        "runs": (len(samples),),
    }
    return SplitDataset(dataset=samples, **{**defaults, **options})


def test_entries_of_undeclared_tasks_are_dropped_and_the_source_is_untouched():
    raw = {
        "inputs": np.zeros((2, 3, 3), np.uint8),
        "targets": {"other": 1, "level": 2.0, "map": np.zeros((2, 3))},
        "valid": {"other": True, "map": np.ones((2, 3), bool)},
        "group": {"other": 3, "level": 1},
    }
    before = {name: dict(raw[name]) for name in ("targets", "valid", "group")}
    sample = view([raw]).sample(0)
    assert list(sample["targets"]) == ["map", "level"]
    assert list(sample["valid"]) == ["map"]
    assert sample["group"] == {"level": 1}
    assert sample["key"] == "train[0]"
    assert {name: raw[name].keys() for name in before} == {k: v.keys() for k, v in before.items()}
    assert "key" not in raw


def test_the_generator_follows_seed_epoch_and_index():
    def number(sample, generator):
        return {**sample, "inputs": generator.random()}

    samples = [{"inputs": np.zeros(1), "targets": {}}] * 3
    drawn = {
        (seed, epoch, index): view(samples, transform=number, seed=seed).sample(index, epoch=epoch)
        for seed in range(3)
        for epoch in range(3)
        for index in range(3)
    }
    assert len({sample["inputs"] for sample in drawn.values()}) == 27
    entry = view(samples, transform=number, seed=2)[1, 2]
    assert entry.value["inputs"] == drawn[2, 1, 2]["inputs"]
    assert view(samples, transform=number)[2].value["inputs"] == drawn[0, 0, 2]["inputs"]


@pytest.mark.parametrize(
    ("image", "mask", "fits"),
    [
        (np.zeros((4, 6, 3)), np.zeros((4, 6)), True),
        (np.zeros((4, 6, 3)), np.zeros((4, 6, 3)), True),
        (np.zeros((4, 6, 3)), np.zeros((6, 4)), False),
        (torch.zeros(3, 4, 6), torch.zeros(4, 6), True),
        (torch.zeros(3, 4, 6), torch.zeros(3, 4, 6), True),
        (torch.zeros(3, 4, 6), torch.zeros(4, 5), False),
        ({"left": np.zeros((4, 6, 3))}, np.zeros((5, 5)), True),
    ],
)
def test_maps_lie_on_the_image(image, mask, fits):
    sample = {"inputs": image, "targets": {"map": mask, "level": np.zeros(2)}, "key": "k"}
    if fits:
        check_sizes(sample, TASKS)
    else:
        with pytest.raises(SampleSizeError, match=r"task 'map'.*sample 'k'"):
            check_sizes(sample, TASKS)


class Counting:
    """Only the last block of samples has the second label; reads are counted."""

    def __init__(self, size, broken=()):
        self.size, self.broken, self.reads = size, broken, 0

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.reads += 1
        if index in self.broken:
            raise UnreadableFileError(str(index), "truncated")
        rare = {"level": 1.0} if index >= 0.9 * self.size else {"level": None}
        return {"inputs": 0, "targets": {"map": 0} | rare}


def test_labels_that_come_in_blocks_are_found_early():
    samples = Counting(1000)
    assert offered_tasks(samples, TASKS) == {"map", "level"}
    assert samples.reads < 100


def test_everything_is_read_before_a_label_is_missed():
    samples = Counting(50)
    assert offered_tasks(samples, ["map", "absent"]) == {"map", "level"}
    assert samples.reads == 50


def test_unreadable_files_while_looking_for_labels():
    assert offered_tasks(Counting(20, range(18)), TASKS, on_error="skip") == {"map", "level"}
    with pytest.raises(UnreadableFileError):
        offered_tasks(Counting(20, range(18)), [*TASKS, "absent"])


def test_no_entry_loads_nothing():
    fetched = view([])[None]
    assert (fetched.value, fetched.skipped, fetched.error) == (None, (), None)
