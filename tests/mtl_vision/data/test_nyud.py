"""A few tiny files in NYUD's layout."""

import pytest
import torch
from toy_files import NYUD_SIZE as SIZE
from toy_files import write_nyud

from mtl_core.errors import ArgumentError, MissingTaskError, UnreadableFileError
from mtl_vision.data.augmentation import Augmentation
from mtl_vision.data.nyud import NYUD
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

TASKS = {
    "semseg": SemanticSegmentation(num_classes=40),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
}


@pytest.fixture
def root(tmp_path):
    return write_nyud(tmp_path)


def test_files_are_read_as_they_are_stored(root):
    data = NYUD(TASKS, root=root, size=SIZE, batch_size=2)
    data.setup("validate")
    (batch,) = data.val_dataloader()
    targets = batch["targets"]
    assert batch["keys"] == ["1000", "1001"]
    assert targets["semseg"][0, 0].tolist() == [255, 255, *range(10, 40)]
    assert (targets["depth"] == 2.5).all()
    x_axis = torch.tensor([1.0, 0, 0])[:, None, None].expand(3, *SIZE)
    torch.testing.assert_close(targets["normals"][0], x_axis, atol=0.006, rtol=0)
    assert (targets["boundary"].sum((1, 2)) == 24).all()
    assert (targets["boundary"][:, :, 10] == 1).all()


@pytest.mark.parametrize("recipe", ["survey", "atrc"])
def test_training_follows_the_recipe(root, recipe):
    data = NYUD(TASKS, root=root, recipe=recipe, batch_size=4)
    batch = next(iter(data.train_dataloader()))
    size = {"survey": (480, 640), "atrc": (448, 576)}[recipe]
    assert batch["inputs"].shape == (4, 3, *size)
    depth = batch["targets"]["depth"].flatten(1).max(1).values  # one zoom per sample
    if recipe == "survey":
        assert all(any(abs(d - 2.5 / s) < 1e-5 for s in (1, 1.2, 1.5)) for d in depth.tolist())
    else:
        assert (depth >= 1.25).all()
        assert (depth <= 5).all()
        assert len(set(depth.tolist())) == 4


def test_splits(root):
    data = NYUD(TASKS, root=root, size=SIZE)
    assert data.dataset("test").keys == data.dataset("val").keys == ["1000", "1001"]
    held = NYUD(TASKS, root=root, size=SIZE, val_fraction=0.25)
    keys = [
        [part[i]["key"] for i in range(len(part))]
        for part in (held.dataset("train"), held.dataset("val"))
    ]
    assert len(keys[0]) == 3
    assert sorted(keys[0] + keys[1]) == ["0000", "0001", "0002", "0003"]
    assert held.dataset("test").keys == ["1000", "1001"]


def test_only_declared_tasks_are_read(root):
    (root / "edge" / "1000.png").unlink()
    data = NYUD(
        {"depth": TASKS["depth"]}, root=root, size=SIZE, augmentation=Augmentation(), cache=True
    )
    assert set(data.dataset("val")[0]["targets"]) == {"depth"}
    with pytest.raises(UnreadableFileError, match=r"edge/1000\.png: no such file"):
        NYUD(TASKS, root=root).dataset("val")[0]


def test_mistakes_are_named(root, tmp_path):
    with pytest.raises(
        MissingTaskError, match="'saliency' has none in NYUD, which offers boundary"
    ):
        NYUD({"saliency": SaliencyDetection()}, root=root)
    with pytest.raises(ArgumentError, match=r"root must hold train\.txt"):
        NYUD(TASKS, root=tmp_path / "none").dataset("train")
    with pytest.raises(ArgumentError, match="predict"):
        NYUD(TASKS, root=root).dataset("predict")
    folder = NYUD(TASKS, root=root, predict=root / "images").dataset("predict")
    assert len(folder) == 6
