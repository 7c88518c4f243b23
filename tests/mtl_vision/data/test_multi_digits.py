"""Two digits, two tasks, disjoint sources."""

import pytest
import torch

from mtl_core.errors import MissingTaskError
from mtl_core.tasks.classification import Classification
from mtl_vision.data.multi_digits import MultiDigits, digits

TASKS = {name: Classification(num_classes=10) for name in ("left", "right")}


def test_sources_of_the_splits_are_disjoint_and_complete():
    parts = [digits(split) for split in ("train", "val", "test")]
    images = [image.tobytes() for part in parts for image in part.images]
    assert len(images) == len(set(images)) == 1797
    for part in parts:
        assert set(part.labels.tolist()) == set(range(10))
        assert part.images.max() == 255


def test_batches():
    data = MultiDigits(TASKS, train_size=32, val_size=8, test_size=8, batch_size=16)
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"].shape == (16, 3, 24, 24)
    assert data.transform("predict").operations()["operations"][1]["size"] == [24, 24]
    assert set(batch["targets"]) == {"left", "right"}
    val, test = next(iter(data.val_dataloader())), next(iter(data.test_dataloader()))
    assert not torch.equal(val["inputs"], test["inputs"])
    predict = next(iter(data.predict_dataloader()))
    assert torch.equal(predict["inputs"], test["inputs"])


def test_separated_digits_can_be_read_by_their_half():
    """With shift 8 the two do not overlap: each quadrant is the image of its own class."""
    data = MultiDigits(TASKS, train_size=4, shift=8, scale=1)
    pool = digits("train")
    sample = data.dataset("train")[2]
    first, second = (int(i) for i in sample["key"].split("+"))
    assert (sample["inputs"][:8, :8, 0] == pool.images[first]).all()
    assert (sample["inputs"][8:, 8:, 0] == pool.images[second]).all()
    assert sample["targets"] == {"left": pool.labels[first], "right": pool.labels[second]}


def test_only_two_tasks():
    with pytest.raises(MissingTaskError, match="'centre' has none in MultiDigits"):
        MultiDigits({"centre": TASKS["left"]})
