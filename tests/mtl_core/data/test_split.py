"""Division of one data set."""

import pytest

from mtl_core.data import SampleSubset, train_val_split
from mtl_core.errors import ArgumentError, EmptySplitError


class Numbers:
    tasks = ("a",)

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"inputs": index, "targets": {}}


def members(part):
    return [part[i]["inputs"] for i in range(len(part))]


@pytest.mark.parametrize(
    ("size", "fraction", "held_out"), [(10, 0.2, 2), (11, 0.5, 6), (3, 0.3, 1)]
)
def test_the_parts_are_the_whole(size, fraction, held_out):
    train, val = train_val_split(Numbers(size), fraction=fraction, seed=1)
    assert len(val) == held_out
    assert sorted(members(train) + members(val)) == list(range(size))
    assert members(train) == sorted(members(train))


def test_the_seed_decides():
    def parts(seed):
        return members(train_val_split(Numbers(50), fraction=0.4, seed=seed)[1])

    assert parts(1) == parts(1) != parts(2)


def test_parts_keep_the_declared_tasks():
    train, val = train_val_split(Numbers(4), fraction=0.5)
    assert train.tasks == val.tasks == ("a",)
    assert SampleSubset([{"inputs": 0, "targets": {}}], [0]).tasks is None


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_fractions_outside_the_unit_interval_are_refused(fraction):
    with pytest.raises(ArgumentError, match=r"fraction must lie in \(0, 1\)"):
        train_val_split(Numbers(10), fraction=fraction)


@pytest.mark.parametrize(("fraction", "split"), [(0.1, "val"), (0.9, "train")])
def test_an_empty_part_is_refused(fraction, split):
    with pytest.raises(EmptySplitError, match=f"'{split}' is empty"):
        train_val_split(Numbers(3), fraction=fraction)
