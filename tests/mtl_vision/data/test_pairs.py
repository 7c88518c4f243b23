"""Pairs are drawn from an index and a seed."""

import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_vision.data.pairs import OverlappedPairs, Sources, overlap

SOURCES = Sources(
    np.random.default_rng(0).integers(1, 256, (30, 4, 5), dtype=np.uint8), np.arange(30) % 10
)


def pairs(**changes):
    arguments = {"length": 6, "shift": 2, "scale": 3, "seed": (0, 1), "tasks": ("left", "right")}
    return OverlappedPairs(SOURCES, **(arguments | changes))


def test_overlap_keeps_both_where_they_are_alone():
    first, second = SOURCES.images[:2]
    canvas = overlap(first, second, 2)
    assert canvas.shape == (6, 7)
    np.testing.assert_array_equal(canvas[:2, :5], first[:2])
    np.testing.assert_array_equal(canvas[-2:, 2:], second[-2:])
    np.testing.assert_array_equal(canvas[2:4, 2:5], np.maximum(first[2:, 2:], second[:2, :3]))
    np.testing.assert_array_equal(overlap(first, second, 0), np.maximum(first, second))


def test_the_same_index_and_seed_give_the_same_pair():
    one, again, other = pairs(), pairs(length=3), pairs(seed=(1, 1))
    for i in range(3):
        np.testing.assert_array_equal(one[i]["inputs"], again[i]["inputs"])
        assert one[i]["targets"] == again[i]["targets"]
    assert any(one[i]["key"] != other[i]["key"] for i in range(6))
    assert len({one[i]["key"] for i in range(6)}) > 1


def test_images_and_classes_belong_together():
    sample = pairs()[4]
    first, second = (int(i) for i in sample["key"].split("+"))
    assert sample["targets"] == {"left": first % 10, "right": second % 10}
    assert sample["inputs"].shape == (18, 21, 3)
    expected = overlap(SOURCES.images[first], SOURCES.images[second], 2)
    np.testing.assert_array_equal(sample["inputs"][::3, ::3, 1], expected)
    assert set(pairs(tasks=("right",))[4]["targets"]) == {"right"}


def test_limits():
    with pytest.raises(IndexError):
        pairs()[6]
    for name, value in (("shift", -1), ("length", -1), ("scale", 0)):
        with pytest.raises(ArgumentError, match=name):
            pairs(**{name: value})
