import pickle

import numpy as np
import pytest
import torch

from mtl_core.errors import ArgumentError, LabelError, MissingTaskError, UnreadableFileError
from mtl_core.tasks import MultiLabel
from mtl_vision.data import Augmentation, Rooms
from mtl_vision.data.rooms import TARGETS, RoomsDataset, record_type, render_record
from mtl_vision.data.transforms import DenseTransform
from mtl_vision.rendering import CLASS_NAMES, Draws, render
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

SIZE = (24, 32)
TASKS = {
    "semseg": SemanticSegmentation(num_classes=len(CLASS_NAMES)),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
    "saliency": SaliencyDetection(),
    "presence": MultiLabel(num_labels=len(CLASS_NAMES), class_names=CLASS_NAMES),
}


def rooms(tasks=TASKS, **options):
    settings = {"size": SIZE, "train_size": 6, "val_size": 4, "test_size": 4, "batch_size": 2}
    return Rooms(tasks, **{**settings, **options})


def assert_same(first, second):
    assert first.keys() == second.keys()
    np.testing.assert_array_equal(first["inputs"], second["inputs"])
    assert first["targets"].keys() == second["targets"].keys()
    for name, target in first["targets"].items():
        np.testing.assert_array_equal(target, second["targets"][name])


def test_a_batch_has_all_tasks_in_the_agreed_form():
    data = rooms()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    shapes = {name: tuple(target.shape) for name, target in batch["targets"].items()}
    assert tuple(batch["inputs"].shape) == (2, 3, *SIZE)
    assert batch["inputs"].dtype == torch.float32
    maps = dict.fromkeys(("semseg", "depth", "boundary", "saliency"), (2, *SIZE))
    assert shapes == {**maps, "normals": (2, 3, *SIZE), "presence": (2, len(CLASS_NAMES))}
    for name, target in batch["targets"].items():
        TASKS[name].check(target)
        assert bool(TASKS[name].valid(target).all())


def test_only_declared_tasks_are_carried():
    data = rooms({"depth": DepthEstimation()})
    data.setup("validate")
    assert list(next(iter(data.val_dataloader()))["targets"]) == ["depth"]
    assert list(data.dataset("val")[0]["targets"]) == ["depth"]


def test_the_image_does_not_depend_on_the_declared_tasks():
    one = rooms({"depth": DepthEstimation()}).dataset("test")[1]
    np.testing.assert_array_equal(one["inputs"], rooms().dataset("test")[1]["inputs"])


def test_scenes_depend_on_seed_split_and_index_alone():
    images = {
        (seed, split, index): render_record(SIZE, seed, split, index)["rgb"].tobytes()
        for seed in (0, 1)
        for split in ("train", "val", "test")
        for index in (0, 1)
    }
    assert len(set(images.values())) == len(images)
    assert render_record(SIZE, 1, "val", 1)["rgb"].tobytes() == images[1, "val", 1]
    assert_same(rooms(seed=5).dataset("val")[2], rooms(seed=6, train_size=9).dataset("val")[2])


def test_predict_shows_the_test_scenes():
    data = rooms()
    expected, found = data.dataset("test")[3], data.dataset("predict")[3]
    np.testing.assert_array_equal(found["inputs"], expected["inputs"])
    data.setup("predict")
    assert next(iter(data.predict_dataloader()))["keys"] == ["predict-000000", "predict-000001"]


def test_boundaries_are_thin_and_lie_between_surfaces():
    sample = rooms(size=(96, 96)).dataset("train")[0]
    edge, semseg = sample["targets"]["boundary"] == 1, sample["targets"]["semseg"]
    assert 0.01 < edge.mean() < 0.15
    block = edge[:-1, :-1] & edge[1:, :-1] & edge[:-1, 1:] & edge[1:, 1:]
    assert not block.any()
    # Every change of class has a boundary pixel within one pixel.
    near = np.zeros((98, 98), bool)
    for dy in range(3):
        for dx in range(3):
            near[dy : dy + 96, dx : dx + 96] |= edge
    changed = semseg[:, :-1] != semseg[:, 1:]
    # Thinning leaves one line of legs a few pixels wide.
    assert near[1:-1, 1:-2][changed].mean() > 0.95


def test_a_flip_mirrors_geometry():
    plain = rooms(augmentation=Augmentation())
    flipped = rooms(augmentation=Augmentation(flip=1.0))
    first, second = (data.prepared("train").sample(3) for data in (plain, flipped))
    for name in ("semseg", "depth", "saliency"):
        assert torch.equal(first["targets"][name].flip(-1), second["targets"][name])
    sign = torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    assert torch.equal(first["targets"]["normals"].flip(-1) * sign, second["targets"]["normals"])
    assert torch.equal(first["inputs"].flip(-1), second["inputs"])
    assert np.array_equal(first["targets"]["presence"], second["targets"]["presence"])


def test_a_rotation_turns_normals_with_the_image():
    """After a rotation in the image plane, normals still are those of the back-projected depth."""
    size, reach = 64, 4
    tasks = {name: TASKS[name] for name in ("depth", "normals")}
    data = rooms(tasks, size=(size, size), augmentation=Augmentation(rotate=60.0))
    x = np.arange(size) + 0.5 - size / 2
    errors = []
    for index in range(6):
        focal = render(Draws([0, 0, index]), size, size).focal
        targets = data.prepared("train").sample(index)["targets"]
        depth, normals = targets["depth"].numpy().astype(float), targets["normals"].numpy()
        points = np.stack((x * depth / focal, -x[:, None] * depth / focal, -depth))
        inner = slice(reach, -reach)
        across = points[:, inner, 2 * reach :] - points[:, inner, : -2 * reach]
        down = points[:, : -2 * reach, inner] - points[:, 2 * reach :, inner]
        cross = np.cross(across, down, axis=0)
        flat = np.ones(cross.shape[1:], bool)
        for dy, dx in ((0, 4), (8, 4), (4, 0), (4, 8)):
            shifted = normals[:, dy : size - 8 + dy, dx : size - 8 + dx]
            flat &= (shifted == normals[:, inner, inner]).all(0) & (shifted != 0).any(0)
        cross, expected = cross[:, flat], normals[:, inner, inner][:, flat]
        cosine = (cross * expected).sum(0) / np.linalg.norm(cross, axis=0)
        errors.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert all(error.size > 100 for error in errors)
    assert max(np.median(error) for error in errors) < 4


def test_caches_change_nothing(tmp_path):
    plain = rooms(cache=False).dataset("train")
    memory = rooms().dataset("train")
    file = rooms(cache_dir=tmp_path).dataset("train")
    for index in (0, 4, 0):
        assert_same(plain[index], memory[index])
        assert_same(plain[index], file[index])


def test_memory_is_bounded():
    kind = record_type(SIZE).itemsize
    dataset = RoomsDataset(SIZE, 0, split="train", length=5, memory=2 * kind + 1)
    assert len(dataset._records) == 2
    assert_same(dataset[4], RoomsDataset(SIZE, 0, split="train", length=5)[4])


def test_samples_are_copies():
    dataset = rooms().dataset("train")
    first = dataset[0]
    expected = first["targets"]["depth"].copy()
    first["targets"]["depth"][:] = 0
    np.testing.assert_array_equal(dataset[0]["targets"]["depth"], expected)


def test_loader_processes_fill_the_memory_for_all(monkeypatch):
    data = rooms({"depth": DepthEstimation()}, num_workers=2)
    data.setup("validate")
    batches = list(data.val_dataloader())
    records = data.prepared("val").dataset._records
    assert records["filled"].tolist() == [1, 1, 1, 1]
    monkeypatch.setattr("mtl_vision.data.rooms.render", None)
    again = [data.prepared("val").sample(index)["targets"]["depth"] for index in range(4)]
    assert torch.equal(torch.stack(again), torch.cat([b["targets"]["depth"] for b in batches]))


def test_a_pickled_dataset_gives_the_same_samples(tmp_path):
    for options in ({}, {"cache_dir": tmp_path}):
        dataset = rooms(**options).dataset("train")
        assert_same(pickle.loads(pickle.dumps(dataset))[1], dataset[1])


def test_files_are_written_once(tmp_path, monkeypatch):
    rooms(cache_dir=tmp_path).prepare_data()
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr("mtl_vision.data.rooms.render", None)
    assert len(rooms(cache_dir=tmp_path).dataset("predict")[0]["targets"]) == len(TARGETS)
    with pytest.raises(TypeError):
        rooms(cache_dir=tmp_path, scene_seed=1).prepare_data()


def test_an_interrupted_write_leaves_no_file(tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("mtl_vision.data.rooms.render", stop)
    with pytest.raises(KeyboardInterrupt):
        rooms(cache_dir=tmp_path).prepare_data()
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path):
    data = rooms(cache_dir=tmp_path)
    data.dataset("val")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableFileError, match=path.name):
        data.dataset("val")


def test_an_unknown_task_is_refused_with_the_nearest_name():
    data = rooms({"normal": SurfaceNormals()})
    with pytest.raises(MissingTaskError, match="Did you mean 'normals'"):
        data.setup("fit")


def test_too_few_classes_are_refused():
    data = rooms({"semseg": SemanticSegmentation(num_classes=3)})
    data.setup("fit")
    with pytest.raises(LabelError, match="semseg"):
        next(iter(data.train_dataloader()))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"size": (4, 96)}, "size"),
        ({"scene_seed": -1}, "scene_seed"),
        ({"val_size": -1}, "val_size"),
    ],
)
def test_arguments_are_checked(options, name):
    with pytest.raises(ArgumentError, match=name):
        rooms(**options)


def test_the_transform_brings_foreign_pictures_to_the_size_of_rooms():
    data = Rooms({"depth": DepthEstimation()}, size=(24, 32), test_size=1)
    steps = data.transform("predict").operations()["operations"]
    assert [step["size"] for step in steps if step["op"] == "resize"] == [[24, 32]]
    sample = data.dataset("test")[0]
    own = data.transform("test")(sample, np.random.default_rng(0))["inputs"]
    plain = DenseTransform(data.tasks, train=False)(sample, np.random.default_rng(0))["inputs"]
    assert torch.equal(own, plain)
