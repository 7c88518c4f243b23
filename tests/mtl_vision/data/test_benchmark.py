"""The official division, and a part held out of training."""

import pytest

from mtl_core.errors import ArgumentError, MissingTaskError
from mtl_core.tasks.classification import Classification
from mtl_vision.data.benchmark import BenchmarkDataModule

TASK = Classification(num_classes=2)
SETTINGS = {
    "root": "here",
    "val_seed": 0,
    "predict": None,
    "batch_size": 1,
    "num_workers": 0,
    "seed": 0,
    "on_error": "raise",
    "drop_last": False,
}


class Keys:
    tasks = frozenset({"a"})

    def __init__(self, keys):
        self.keys = keys

    def __len__(self):
        return len(self.keys)

    def __getitem__(self, index):
        return {"inputs": 0, "targets": {"a": 0}, "key": self.keys[index]}


class Official(BenchmarkDataModule):
    offered = ("a",)

    def labelled(self, split):
        return Keys([f"{split}{i}" for i in range(10 if split == "train" else 3)])


def keys(data, split):
    samples = data.dataset(split)
    return {samples[i]["key"] for i in range(len(samples))}


def test_the_official_validation_part_is_the_test_split():
    data = Official({"a": TASK}, val_fraction=None, **SETTINGS)
    assert keys(data, "test") == keys(data, "val") == {"val0", "val1", "val2"}
    assert len(keys(data, "train")) == 10


def test_a_held_out_part_leaves_the_test_split_alone():
    data = Official({"a": TASK}, val_fraction=0.2, **SETTINGS)
    assert keys(data, "test") == {"val0", "val1", "val2"}
    assert len(keys(data, "val")) == 2
    assert not keys(data, "val") & keys(data, "train")
    assert keys(data, "val") | keys(data, "train") == {f"train{i}" for i in range(10)}
    other = Official({"a": TASK}, val_fraction=0.2, **{**SETTINGS, "val_seed": 1})
    assert keys(other, "val") != keys(data, "val")


def test_mistakes_are_named():
    with pytest.raises(MissingTaskError, match="'b' has none in Official, which offers a"):
        Official({"b": TASK}, val_fraction=None, **SETTINGS)
    with pytest.raises(ArgumentError, match="predict must name a folder"):
        Official({"a": TASK}, val_fraction=None, **SETTINGS).dataset("predict")
