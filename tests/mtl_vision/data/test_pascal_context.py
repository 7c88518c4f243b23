"""A few tiny files in PASCAL-Context's layout."""

import numpy as np
import pytest
import scipy.io
from PIL import Image
from toy_files import OTHER, PERSON, annotation, rectangle, write_pascal
from toy_files import PASCAL_SIZE as SIZE

from mtl_core.errors import SampleSizeError, UnreadableFileError
from mtl_vision.data.pascal_context import (
    NORMALS_CLASSES,
    PARTS,
    PascalContext,
    read_human_parts,
    read_label_map,
)
from mtl_vision.tasks import (
    BoundaryDetection,
    HumanParts,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtl_vision.thinning import thin

TASKS = {
    "semseg": SemanticSegmentation(num_classes=21),
    "human_parts": HumanParts(),
    "saliency": SaliencyDetection(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
}


@pytest.fixture
def root(tmp_path):
    return write_pascal(tmp_path)


def test_files_are_read_as_they_are_stored(root):
    data = PascalContext(TASKS, root=root, size=SIZE, batch_size=2)
    data.setup("validate")
    (batch,) = data.val_dataloader()
    targets = batch["targets"]
    assert batch["keys"] == ["2008_000002", "2008_000003"]
    assert (targets["semseg"][0] == 20).all()  # VOC12 where it exists
    assert (targets["semseg"][1, :, :-1] == 4).all()
    assert (targets["semseg"][1, :, -1] == 255).all()

    parts = targets["human_parts"][0]
    assert (parts[:5, 5:10] == 1).all()
    assert (parts[15:, 5:10] == 6).all()
    assert (parts[5:10, 20:25] == 3).all()
    assert (parts > 0).sum() == 75  # a horse's head is no human part
    assert not targets["human_parts"][1].any()
    assert not TASKS["human_parts"].valid(targets["human_parts"])[1].any()

    assert targets["saliency"].unique().tolist() == [0, 1]
    assert targets["saliency"][0, 0].sum() == 15

    assert (targets["normals"][:, :, :8] == 0).all()
    np.testing.assert_allclose(targets["normals"][0, :, 12, 3], [0, -1, 0], atol=0.01)

    boundary = targets["boundary"][0].numpy() == 1
    assert (boundary.sum(0)[1:-1] == 1).all()
    assert set(np.flatnonzero(boundary.any(1))) <= {7, 8}
    np.testing.assert_array_equal(thin(boundary), boundary)


@pytest.mark.parametrize("recipe", ["survey", "atrc"])
def test_training_follows_the_recipe(root, recipe):
    data = PascalContext(TASKS, root=root, recipe=recipe, batch_size=1)
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"].shape == (1, 3, 512, 512)
    assert set(batch["targets"]) == set(TASKS)
    for name, task in TASKS.items():
        task.check(batch["targets"][name])


def test_one_person_and_no_object(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, annotation(OTHER))
    assert (read_human_parts(path, SIZE) == 3).sum() == 25
    scipy.io.savemat(path, annotation(("person", 15, [])))
    assert not read_human_parts(path, SIZE).any()
    scipy.io.savemat(path, annotation())
    assert read_human_parts(path, SIZE).shape == SIZE


def test_parts_and_classes_are_complete():
    assert len(PARTS) == 24
    assert set(PARTS.values()) == {1, 2, 3, 4, 5, 6}
    assert len(set(NORMALS_CLASSES)) == len(NORMALS_CLASSES) == 170
    assert {427, 158, 440, 284} <= set(NORMALS_CLASSES)  # tvmonitor, floor, wall, person
    assert not {360, 431, 420 + 25} & set(NORMALS_CLASSES)  # sky, unknown, water


def test_damaged_annotations_are_named(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(UnreadableFileError, match=r"a\.mat: no such file"):
        read_label_map(path)
    path.write_bytes(b"no matlab")
    with pytest.raises(UnreadableFileError, match=r"a\.mat"):
        read_label_map(path)
    scipy.io.savemat(path, {"LabelMap": np.ones((3, 4, 2), np.uint8)})
    with pytest.raises(UnreadableFileError, match=r"\(H, W\) integers"):
        read_label_map(path)
    with pytest.raises(UnreadableFileError, match="no variable 'anno'"):
        read_human_parts(path, SIZE)
    scipy.io.savemat(path, annotation(("person", 15, [("tail", rectangle(0, 1, 0, 1))])))
    with pytest.raises(UnreadableFileError, match=r"not a part annotation.*tail"):
        read_human_parts(path, SIZE)
    for compressed in (False, True):
        scipy.io.savemat(path, annotation(PERSON), do_compression=compressed)
        content = path.read_bytes()
        for kept in (0.3, 0.6, 0.9):
            path.write_bytes(content[: int(kept * len(content))])
            with pytest.raises(UnreadableFileError, match=r"a\.mat"):
                read_human_parts(path, SIZE)


def test_normals_of_another_size_are_named(root):
    small = np.zeros((10, 30, 3), np.uint8)
    Image.fromarray(small).save(root / "normals_distill/2008_000002.png")
    with pytest.raises(SampleSizeError, match=r"'normals'.*'2008_000002'"):
        PascalContext(TASKS, root=root).dataset("val")[0]
