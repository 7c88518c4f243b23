"""A free layout of folders and tables, CamVid's among them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image

from mtl_core.data.datamodule import MultiTaskDataModule
from mtl_core.errors import (
    ArgumentError,
    LabelError,
    MissingTaskError,
    SampleSizeError,
    UnknownNameError,
    UnreadableFileError,
)
from mtl_core.tasks.classification import Classification
from mtl_core.tasks.multilabel import MultiLabel
from mtl_core.tasks.regression import Regression
from mtl_vision.data.augmentation import Augmentation
from mtl_vision.data.image_folder import ImageFolderTasks
from mtl_vision.data.targets import TargetSource
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

CAMVID = Path(__file__).parents[3].parent / "shared" / "data" / "camvid"

TASKS = {
    "semseg": SemanticSegmentation(num_classes=3),
    "boundary": BoundaryDetection(),
    "presence": MultiLabel(num_labels=3),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "saliency": SaliencyDetection(),
    "weather": Classification(num_classes=2, class_names=("sun", "rain")),
    "quality": Regression(),
}
TARGETS = {
    "semseg": TargetSource(folder="{split}/label", suffix="_L", ignore=11),
    "boundary": TargetSource(derive="boundaries", source="semseg"),
    "presence": TargetSource(derive="presence", source="semseg"),
    "depth": TargetSource(folder="{split}/depth", scale=0.001),
    "normals": TargetSource(folder="{split}/normals"),
    "saliency": TargetSource(folder="{split}/mask", threshold=128),
    "weather": TargetSource(csv="labels.csv", column="weather"),
    "quality": TargetSource(csv="labels.csv", column="quality"),
}
SIZE = (12, 16)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["name,weather,quality"]
    for split, names in (("train", ("a", "b", "sub/c", "d")), ("val", ("e",))):
        for i, name in enumerate(names):
            base = tmp_path / split
            write(base / "image" / f"{name}.png", rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
            labels = np.zeros(SIZE, np.uint8)
            labels[:, 8:] = 1 + i % 2
            labels[0] = 11
            write(base / "label" / f"{name}_L.png", labels)
            write(base / "depth" / f"{name}.png", np.full(SIZE, 1500, np.uint16))
            write(base / "mask" / f"{name}.png", (labels == 1).astype(np.uint8) * 255)
            normals = np.tile(np.asarray([0, 0, 1], np.float32), (*SIZE, 1))
            (base / "normals" / f"{name}.npy").parent.mkdir(parents=True, exist_ok=True)
            np.save(base / "normals" / Path(name).name, normals) if "/" not in name else None
            rows.append(f"{name},{'sun' if i % 2 else 'rain'},{i / 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def module(root, tasks=None, targets=None, **arguments):
    tasks = TASKS if tasks is None else {name: TASKS[name] for name in tasks}
    return ImageFolderTasks(tasks, root=root, targets=targets or TARGETS, batch_size=4, **arguments)


def test_every_kind_of_target_arrives(root):
    data = module(root)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["keys"] == ["e"]
    targets = batch["targets"]
    assert batch["inputs"].shape == (1, 3, *SIZE)
    assert targets["semseg"][0, 5].tolist() == [0] * 8 + [1] * 8
    assert (targets["semseg"][0, 0] == 255).all()
    assert targets["boundary"][0, 5].nonzero().flatten().tolist() == [7]
    assert (targets["boundary"][0, 0] == 255).all()
    assert targets["presence"].tolist() == [[1, 1, 0]]
    assert torch.allclose(targets["depth"], torch.full((1, *SIZE), 1.5))
    assert targets["normals"].shape == (1, 3, *SIZE)
    assert targets["saliency"].sum() == 11 * 8
    assert targets["weather"].tolist() == [1]
    assert targets["quality"].tolist() == [0.0]


def test_absent_maps_and_rows_are_unlabelled(root):
    (root / "train" / "depth" / "b.png").unlink()
    (root / "labels.csv").write_text(
        "name,weather,quality\na,rain,\nsub/c.png,,3\nd,sun,2\ne,sun,1"
    )
    data = module(root)
    data.setup("fit")
    samples = {s["key"]: set(s["targets"]) for s in map(data.prepared("train").sample, range(4))}
    everything = set(TASKS)
    assert samples["a"] == everything - {"quality"}
    assert samples["b"] == everything - {"depth", "weather", "quality"}
    assert samples["sub/c"] == everything - {"normals", "weather"}
    assert samples["d"] == everything


def test_derived_targets_do_not_need_their_source_declared(root):
    data = module(root, ("boundary", "presence"))
    data.setup("fit")
    sample = data.prepared("val").sample(0)
    assert set(sample["targets"]) == {"boundary", "presence"}


def test_missing_places_are_named(root):
    with pytest.raises(MissingTaskError, match="'semseg' has none in the targets"):
        module(root, ("semseg",), {"depth": TARGETS["depth"]})
    with pytest.raises(ArgumentError, match=r"'test' \(splits: \{test: FOLDER\}\), found .*test"):
        module(root).setup("test")
    for folder, message in (("{split}/none", "folder of target 'semseg'"), ("train", None)):
        data = module(root, ("semseg",), {"semseg": TargetSource(folder=folder)})
        with pytest.raises(ArgumentError, match=message or "hold only maps of images"):
            data.dataset("val")
    data = module(root, ("quality",), {"quality": TargetSource(csv="q.csv", column="quality")})
    with pytest.raises(ArgumentError, match="csv of target 'quality' must name an existing file"):
        data.dataset("train")
    with pytest.raises(UnknownNameError, match=r"splits.*'valid'"):
        module(root, splits={"train": "train", "valid": "val"})
    with pytest.raises(ArgumentError, match="predict must name a folder"):
        module(root).setup("predict")


def test_names_must_match(root):
    write(root / "train" / "label" / "stranger_L.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(ArgumentError, match=r"such as 'a_L', found \['stranger_L'\]"):
        module(root).dataset("train")
    (root / "train" / "label" / "stranger_L.png").unlink()
    Image.new("RGB", SIZE[::-1]).save(root / "train" / "image" / "a.jpg")
    with pytest.raises(ArgumentError, match="one file of a name"):
        module(root).dataset("train")
    (root / "train" / "image" / "a.jpg").unlink()
    (root / "labels.csv").write_text("name,weather,quality\nz,rain,1")
    with pytest.raises(ArgumentError, match=r"name images such as 'a'.*found \['z'\]"):
        module(root).dataset("train")


def test_splits_can_share_a_folder(root):
    data = module(root, splits={"train": "train", "val": "val", "test": "val"})
    data.setup("test")
    assert [key for batch in data.test_dataloader() for key in batch["keys"]] == ["e"]


def test_a_validation_part_of_the_training_folder(root):
    data = module(root, val_fraction=0.25)
    train, val = data.dataset("train"), data.dataset("val")
    keys = [{s[i]["key"] for i in range(len(s))} for s in (train, val)]
    assert len(keys[0]) == 3
    assert keys[0] | keys[1] == {"a", "b", "sub/c", "d"}
    assert not keys[0] & keys[1]


def test_predict_reads_any_folder(root, tmp_path):
    data = module(root, predict=root / "train" / "image", size=(8, 8))
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["keys"] == ["a.png", "b.png", "d.png", "sub/c.png"]
    assert batch["inputs"].shape == (4, 3, 8, 8)
    assert batch["targets"] == {}


def test_a_mask_of_another_size_is_named(root):
    write(root / "val" / "depth" / "e.png", np.ones((5, 16), np.uint16))
    data = module(root)
    with pytest.raises(SampleSizeError, match=r"'depth' has \(5, 16\), the image \(12, 16\).*'e'"):
        data.prepared("val").sample(0)


def test_classes_out_of_range_are_named(root):
    write(root / "val" / "label" / "e_L.png", np.full(SIZE, 3, np.uint8))
    data = module(root, ("semseg",))
    with pytest.raises(LabelError, match=r"lie in|0..2"):
        list(data.val_dataloader())
    data = module(root, ("presence",))
    with pytest.raises(LabelError, match=r"'presence' must derive from classes in 0..2"):
        data.dataset("val")[0]


def test_truncated_images_stop_or_are_skipped(root):
    path = root / "train" / "image" / "b.png"
    path.write_bytes(path.read_bytes()[:200])
    data = module(root, ("semseg",))
    with pytest.raises(UnreadableFileError, match=r"b\.png"):
        list(data.train_dataloader())
    data = module(root, ("semseg",), on_error="skip")
    (batch,) = data.train_dataloader()
    assert len(batch["keys"]) == 4
    assert "b" not in batch["keys"]
    assert data.skipped == {str(path): 1}


def test_kept_samples_survive_the_loss_of_their_files(root):
    data = module(root, ("semseg",), cache=True, augmentation=Augmentation(flip=0.5, color=1.0))
    first = data.dataset("val")
    before = first[0]
    (root / "val" / "image" / "e.png").unlink()
    data.transform("train")(first[0], np.random.default_rng(0))
    np.testing.assert_array_equal(first[0]["inputs"], before["inputs"])


def test_plain_yaml_builds_it(root):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=MultiTaskDataModule)
    config = parser.parse_string(f"""
data:
  class_path: mtl_vision.data.ImageFolderTasks
  init_args:
    tasks:
      semseg: {{class_path: mtl_vision.tasks.SemanticSegmentation, init_args: {{num_classes: 3}}}}
      quality: {{class_path: mtl_core.tasks.Regression}}
    root: {root}
    targets:
      semseg: {{folder: "{{split}}/label", suffix: _L, ignore: 11}}
      presence: {{derive: presence, source: semseg}}
      quality: {{csv: labels.csv, column: quality}}
    splits: {{train: train, val: val, test: val}}
    size: [8, 8]
    augmentation: {{flip: 0.5, scale: [0.8, 1.2]}}
""")
    data = parser.instantiate_classes(config).data
    assert data.augmentation == Augmentation(flip=0.5, scale=(0.8, 1.2))
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"].shape == (4, 3, 8, 8)
    assert set(batch["targets"]) == {"semseg", "quality"}


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here")
def test_camvid_as_it_stands():
    data = ImageFolderTasks(
        {
            "semseg": SemanticSegmentation(num_classes=11),
            "boundary": BoundaryDetection(),
            "presence": MultiLabel(num_labels=11),
        },
        root=CAMVID,
        targets={
            "semseg": TargetSource(folder="{split}/label", ignore=11),
            "boundary": TARGETS["boundary"],
            "presence": TARGETS["presence"],
        },
        augmentation=Augmentation(flip=0.5, color=0.5),
        size=(96, 128),
        batch_size=8,
    )
    data.setup("fit")
    assert len(data.prepared("train")) == 367
    assert len(data.prepared("val")) == 101
    batch = next(iter(data.train_dataloader()))
    targets = batch["targets"]
    assert batch["inputs"].shape == (8, 3, 96, 128)
    assert 0.01 < (targets["boundary"] == 1).float().mean() < 0.3
    assert targets["presence"].sum(1).min() >= 4
    assert ((targets["semseg"] == 255) == (targets["boundary"] == 255)).float().mean() > 0.95
