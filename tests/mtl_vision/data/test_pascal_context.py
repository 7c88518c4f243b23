"""A few tiny files in PASCAL-Context's layout."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mtl_core.errors import SampleSizeError, UnreadableFileError
from mtl_vision.data.boundaries import thin
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

TASKS = {
    "semseg": SemanticSegmentation(num_classes=21),
    "human_parts": HumanParts(),
    "saliency": SaliencyDetection(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
}
SIZE = (20, 30)


def rectangle(*box):
    mask = np.zeros(SIZE, np.uint8)
    mask[box[0] : box[1], box[2] : box[3]] = 1
    return mask


def structs(records, fields):
    """A 1xN MATLAB struct array."""
    array = np.empty((1, len(records)), dtype=[(field, object) for field in fields])
    for i, record in enumerate(records):
        array[0, i] = tuple(record)
    return array


def annotation(*objects):
    """A PASCAL-Part annotation: (class, index, [(part, mask), ...]) for every object."""
    fields = ("class", "class_ind", "mask", "parts")
    records = [
        (name, index, np.ones(SIZE, np.uint8), structs(parts, ("part_name", "mask")))
        for name, index, parts in objects
    ]
    return {"anno": structs([("img", structs(records, fields))], ("imname", "objects"))}


PERSON = ("person", 15, [("head", rectangle(0, 5, 5, 10)), ("lfoot", rectangle(15, 20, 5, 10))])
OTHER = ("person", 15, [("ruarm", rectangle(5, 10, 20, 25))])
HORSE = ("horse", 13, [("head", rectangle(0, 20, 25, 30))])


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    folders = ("ImageSets/Context", "JPEGImages", "semseg/VOC12", "semseg/pascal-context")
    more = ("human_parts", "normals_distill", "sal_distill", "pascal-context/trainval")
    for folder in folders + more:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Context/train.txt").write_text("2008_000001\n")
    (tmp_path / "ImageSets/Context/val.txt").write_text("2008_000002\n2008_000003\n")
    context = np.full(SIZE, 360, np.uint16)  # sky: no class of NYUDv2
    context[8:] = 158  # floor
    for name in ("2008_000001", "2008_000002", "2008_000003"):
        image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        labels = np.full(SIZE, 4, np.uint8)
        labels[:, -1] = 255
        Image.fromarray(labels).save(tmp_path / "semseg/pascal-context" / f"{name}.png")
        normals = np.tile(np.asarray([128, 0, 128], np.uint8), (*SIZE, 1))
        Image.fromarray(normals).save(tmp_path / "normals_distill" / f"{name}.png")
        saliency = np.tile(np.linspace(0, 255, 30).astype(np.uint8), (20, 1))
        Image.fromarray(saliency).save(tmp_path / "sal_distill" / f"{name}.png")
        scipy.io.savemat(
            tmp_path / "pascal-context/trainval" / f"{name}.mat", {"LabelMap": context}
        )
        people = annotation(HORSE) if name.endswith("3") else annotation(PERSON, HORSE, OTHER)
        scipy.io.savemat(tmp_path / "human_parts" / f"{name}.mat", people)
    voc = np.full(SIZE, 20, np.uint8)
    Image.fromarray(voc).save(tmp_path / "semseg/VOC12/2008_000002.png")
    return tmp_path


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
