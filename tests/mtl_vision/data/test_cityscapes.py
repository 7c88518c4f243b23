"""A few tiny files in Cityscapes' layout."""

import numpy as np
import pytest
from PIL import Image
from toy_files import CITYSCAPES_SIZE as SIZE
from toy_files import write_cityscapes

from mtl_core.errors import ArgumentError, MissingTaskError, UnreadableFileError
from mtl_vision.data.cityscapes import (
    BASELINE,
    FOCAL_LENGTH,
    Cityscapes,
    class_table,
    disparity_to_depth,
)
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation, SurfaceNormals


def tasks(num_classes=19):
    return {"semseg": SemanticSegmentation(num_classes=num_classes), "depth": DepthEstimation()}


@pytest.fixture
def root(tmp_path):
    return write_cityscapes(tmp_path)


def test_files_are_read_as_they_are_stored(root):
    data = Cityscapes(tasks(), root=root, size=None, batch_size=2)
    data.setup("validate")
    (batch,) = data.val_dataloader()
    assert batch["keys"] == ["lindau/lindau_000000_000019"]
    semseg, depth = batch["targets"]["semseg"], batch["targets"]["depth"]
    ids = np.arange(512).reshape(SIZE) % 34
    assert (semseg[0].numpy()[ids == 7] == 0).all()
    assert (semseg[0].numpy()[ids == 33] == 18).all()
    assert (semseg[0].numpy()[ids < 7] == 255).all()
    assert sorted(semseg.unique().tolist()) == [*range(19), 255]
    assert (depth[0, :2] == 0).all()
    np.testing.assert_allclose(depth[0, 2:], BASELINE * FOCAL_LENGTH / 40, rtol=1e-6)


def test_seven_categories(root):
    data = Cityscapes(tasks(7), root=root, size=None)
    semseg = data.dataset("val")[0]["targets"]["semseg"]
    assert sorted(np.unique(semseg)) == [*range(7), 255]
    table = class_table(7)
    assert [table[i] for i in (7, 11, 17, 21, 23, 24, 26)] == list(range(7))
    # The 19 classes are finer: two ids of one class never fall into two categories.
    fine = class_table(19)
    assert (table[fine != 255] != 255).all()
    with pytest.raises(ArgumentError, match="19 or 7 on Cityscapes, found 20"):
        Cityscapes(tasks(20), root=root)


def test_depth_falls_with_disparity():
    stored = np.asarray([[0, 1, 2, 257, 65535]], np.uint16)
    depth = disparity_to_depth(stored)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(
        depth, [[0, 0, BASELINE * FOCAL_LENGTH * 256, BASELINE * FOCAL_LENGTH, depth[0, 4]]]
    )
    assert 0 < depth[0, 4] < depth[0, 3]


def test_training_and_splits(root):
    data = Cityscapes(tasks(), root=root, size=(8, 16), batch_size=2)
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"].shape == (2, 3, 8, 16)
    assert len(data.dataset("test")) == 1
    held = Cityscapes(tasks(), root=root, val_fraction=0.5)
    assert len(held.dataset("train")) == len(held.dataset("val")) == 1


def test_mistakes_are_named(root, tmp_path):
    with pytest.raises(MissingTaskError, match="'normals' has none in Cityscapes"):
        Cityscapes({"normals": SurfaceNormals()}, root=root)
    with pytest.raises(ArgumentError, match="root must name an existing folder"):
        Cityscapes(tasks(), root=tmp_path / "none").dataset("train")
    path = next((root / "gtFine/val").rglob("*.png"))
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(path)
    with pytest.raises(UnreadableFileError, match="label ids must be 8 bits"):
        Cityscapes(tasks(), root=root).dataset("val")[0]
