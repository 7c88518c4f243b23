import numpy as np
import pytest
import torch

from mtl_core.data.batch import batch_size, collate
from mtl_core.errors import LabelError


def sample(i: int, **targets):
    return {"inputs": np.full(3, i, dtype="float32"), "targets": targets, "key": f"row {i}"}


def test_full_labels_need_no_mask():
    batch = collate([sample(0, a=1), sample(1, a=2)])
    assert batch["inputs"].shape == (2, 3)
    assert batch["targets"]["a"].tolist() == [1, 2]
    assert "labelled" not in batch
    assert batch["keys"] == ["row 0", "row 1"]


def test_missing_labels_become_a_mask():
    batch = collate([sample(0, a=1), sample(1, b=2.5), sample(2, a=3, b=0.5)])
    assert batch["labelled"]["a"].tolist() == [True, False, True]
    assert batch["labelled"]["b"].tolist() == [False, True, True]
    assert batch["targets"]["a"].dtype == torch.int64
    assert set(batch["targets"]) == {"a", "b"}


def test_a_batch_without_any_label():
    batch = collate([sample(0), sample(1)])
    assert batch["targets"] == {}
    assert batch_size(batch) == 2


def test_sixteen_bit_images_are_widened():
    batch = collate([sample(0, depth=np.full((2, 2), 60_000, dtype="uint16"))])
    assert batch["targets"]["depth"].max() == 60_000


def test_inputs_by_name_validity_groups_and_tags():
    samples = [
        {
            "inputs": {"numeric": np.ones(2, "float32"), "codes": np.array([i])},
            "targets": {"a": np.zeros(4, "float32")} if i else {},
            "valid": {"a": np.array([True, False, True, i == 1])} if i else {},
            "group": {"a": i} if i else {},
            "tags": {"camera": i},
        }
        for i in range(3)
    ]
    batch = collate(samples)
    assert set(batch["inputs"]) == {"numeric", "codes"}
    assert batch["valid"]["a"].shape == (3, 4)
    assert batch["group"]["a"].tolist() == [-1, 1, 2]
    assert batch["tags"]["camera"].tolist() == [0, 1, 2]


def test_shapes_have_to_agree():
    with pytest.raises(LabelError, match="targets of task 'a' must have one shape within a batch"):
        collate([sample(0, a=np.zeros(2)), sample(1, a=np.zeros(3))])


def test_labelled_samples_need_their_group():
    with pytest.raises(LabelError, match=r"group in every sample.*'row 1'"):
        collate([sample(0, a=1) | {"group": {"a": 0}}, sample(1, a=1)])


def test_tags_have_to_be_complete():
    with pytest.raises(LabelError, match="tags"):
        collate([sample(0, a=1) | {"tags": {"camera": 0}}, sample(1, a=1)])
