"""Geometry stays true for every kind of map, and everything comes from the generator."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from mtl_core.errors import ArgumentError, SampleSizeError
from mtl_core.tasks.classification import Classification
from mtl_vision.data.augmentation import RECIPES
from mtl_vision.data.boundaries import label_boundaries
from mtl_vision.data.transforms import IMAGENET_MEAN, IMAGENET_STD, DenseTransform, distort_colors
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    HumanParts,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtl_vision.thinning import thin

TASKS = {
    "semseg": SemanticSegmentation(num_classes=5),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
    "saliency": SaliencyDetection(),
    "scene": Classification(num_classes=3),
}


def make_sample(height=32, width=48, seed=0):
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(height, width)), 4) for _ in range(5)]
    labels = np.argmax(smooth, axis=0).astype(np.uint8)
    labels[:2, :3] = 255
    normals = rng.normal(size=(height, width, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    normals[-2:, -3:] = 0
    depth = rng.uniform(1, 5, (height, width)).astype(np.float32)
    depth[5:7, 5:9] = 0
    return {
        "inputs": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "targets": {
            "semseg": labels,
            "depth": depth,
            "normals": normals,
            "boundary": label_boundaries(labels),
            "saliency": (labels == 1).astype(np.uint8),
            "scene": 2,
        },
        "key": "a",
    }


def arrays(sample):
    """A transformed sample in the layout it came in (without the normalisation of the image)."""
    image = sample["inputs"].permute(1, 2, 0).numpy() * IMAGENET_STD + IMAGENET_MEAN
    targets = {
        n: t.permute(1, 2, 0).numpy() if n == "normals" else t.numpy() if n != "scene" else t
        for n, t in sample["targets"].items()
    }
    return {**sample, "inputs": (image * 255).round().astype(np.uint8), "targets": targets}


def assert_same(first, second):
    assert torch.equal(first["inputs"], second["inputs"])
    assert first["targets"].keys() == second["targets"].keys()
    for name, target in first["targets"].items():
        assert torch.equal(torch.as_tensor(target), torch.as_tensor(second["targets"][name])), name


def test_evaluation_changes_nothing_but_layout_and_scale():
    sample = make_sample()
    result = DenseTransform(TASKS, train=False, flip=1.0)(sample, np.random.default_rng(0))
    image = (sample["inputs"] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert result["inputs"].dtype == torch.float32
    np.testing.assert_allclose(result["inputs"].permute(1, 2, 0).numpy(), image, atol=1e-5)
    for name, target in arrays(result)["targets"].items():
        np.testing.assert_array_equal(target, sample["targets"][name])
    assert result["targets"]["normals"].shape == (3, 32, 48)
    assert result["targets"]["semseg"].dtype == torch.uint8


def test_output_shares_no_memory_with_the_data_set():
    sample = make_sample()
    result = DenseTransform(TASKS, train=False)(sample, np.random.default_rng(0))
    result["targets"]["semseg"].zero_()
    assert sample["targets"]["semseg"].any()


def test_flip_twice_is_the_identity_for_every_target():
    sample, rng = make_sample(), np.random.default_rng(0)
    flip = DenseTransform(TASKS, train=True, flip=1.0)
    once = flip(sample, rng)
    assert torch.equal(
        once["targets"]["normals"][0],
        -torch.from_numpy(sample["targets"]["normals"][:, ::-1, 0].copy()),
    )
    assert_same(flip(arrays(once), rng), DenseTransform(TASKS, train=False)(sample, rng))


@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_zoom_by_s_divides_depth_by_s(fit):
    sample = make_sample()
    sample["targets"]["depth"][:] = 3.0
    zoom = DenseTransform(TASKS, size=(32, 48), train=True, scale=(1.5, 1.5), fit=fit)
    depth = zoom(sample, np.random.default_rng(0))["targets"]["depth"]
    assert torch.equal(depth, torch.full((32, 48), 2.0))


def test_resizing_alone_keeps_depth():
    sample = make_sample()
    resize = DenseTransform(TASKS, size=(16, 24), train=True)
    depth = resize(sample, np.random.default_rng(0))["targets"]["depth"]
    assert set(depth.unique().tolist()) <= set(sample["targets"]["depth"].ravel().tolist())


@pytest.mark.parametrize("normals_y", ["down", "up"])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_rotation_by_90_degrees_is_exact(monkeypatch, normals_y, interpolation):
    sample = make_sample(32, 32)
    rotate = DenseTransform(
        TASKS, train=True, rotate=90.0, normals_y=normals_y, interpolation=interpolation
    )

    class Most:  # a generator that draws the upper end
        def uniform(self, low, high):
            return high

        def random(self):
            return 1.0

    result = rotate(sample, Most())
    # Positive angles are clockwise as displayed; np.rot90 turns the other way.
    clockwise = {n: np.rot90(t, -1) for n, t in sample["targets"].items() if n != "scene"}
    image = arrays(result)["inputs"]
    assert np.abs(image.astype(int) - np.rot90(sample["inputs"], -1)).max() <= 1
    for name in ("semseg", "depth", "saliency"):
        np.testing.assert_array_equal(result["targets"][name].numpy(), clockwise[name])
    x, y, z = np.moveaxis(clockwise["normals"], 2, 0)
    # Turning clockwise takes "right" to "down" and "down" to "left".
    turned = (-y, x, z) if normals_y == "down" else (y, -x, z)
    np.testing.assert_allclose(result["targets"]["normals"].numpy(), turned, atol=2e-5)


def test_rotated_normals_stay_unit_or_unknown():
    rotate = DenseTransform(TASKS, train=True, rotate=30.0, scale=(0.7, 1.3), interpolation="cubic")
    for seed in range(5):
        result = rotate(make_sample(seed=seed), np.random.default_rng(seed))
        length = result["targets"]["normals"].norm(dim=0)
        known = length > 0
        assert torch.allclose(length[known], torch.ones(()), atol=1e-5)
        assert not known.all()


def test_a_sphere_keeps_its_normals_under_rotation():
    """In the centre of rotation symmetry, turned normals equal the normals of the turned image."""
    y, x = np.mgrid[-31.5:32, -31.5:32] / 30
    z = np.sqrt(np.maximum(0, 1 - x**2 - y**2))
    sphere = np.where((z > 0)[..., None], np.stack((x, y, z), 2), 0).astype(np.float32)
    sample = {"inputs": np.zeros((64, 64, 3), np.uint8), "targets": {"normals": sphere}}
    rotate = DenseTransform(TASKS, train=True, rotate=45.0, interpolation="cubic")
    turned = rotate(sample, np.random.default_rng(3))["targets"]["normals"].permute(1, 2, 0).numpy()
    inside = np.hypot(x, y) < 0.8
    cosine = (turned * sphere).sum(2)[inside]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1.0


@pytest.mark.parametrize(("zoom", "rotate"), [(2.3, 0.0), (0.5, 0.0), (0.4, 20.0), (1.0, 20.0)])
def test_resampled_boundaries_stay_thin_and_connected(zoom, rotate):
    labels = np.zeros((64, 64), np.uint8)
    labels[10:50, 20:55] = 1
    boundary = label_boundaries(labels)
    sample = {
        "inputs": np.zeros((64, 64, 3), np.uint8),
        "targets": {"boundary": boundary},
    }
    size = (round(64 * zoom),) * 2
    warp = DenseTransform(TASKS, size=size, train=True, rotate=rotate)
    moved = warp(sample, np.random.default_rng(0))["targets"]["boundary"].numpy()
    line = moved == 1
    np.testing.assert_array_equal(thin(line), line)
    assert ndimage.label(line, np.ones((3, 3)))[1] == 1  # the outline is not cut
    assert ndimage.label(~line)[1] == 2  # and still separates inside from outside
    assert abs(line.sum() - zoom * boundary.sum()) < 0.3 * zoom * boundary.sum()


def test_uncovered_pixels_carry_no_label():
    shrink = DenseTransform(TASKS, train=True, scale=(0.5, 0.5))
    sample = make_sample()
    sample["valid"] = {"semseg": np.ones((32, 48), bool)}
    result = shrink(sample, np.random.default_rng(0))
    targets = result["targets"]
    corner = (slice(0, 7), slice(0, 11))
    for name in ("semseg", "boundary", "saliency"):
        assert (targets[name][corner] == 255).all(), name
    assert (targets["depth"][corner] == 0).all()
    assert (targets["normals"][:, *corner] == 0).all()
    assert not result["valid"]["semseg"][corner].any()
    assert result["valid"]["semseg"][12:20, 18:30].all()
    assert result["inputs"][:, *corner].abs().max() < 0.02  # the mean colour
    for name, task in TASKS.items():
        if task.dense:
            task.check(targets[name][None])

    survey = DenseTransform(TASKS, train=True, scale=(0.5, 0.5), border="zero")
    assert (survey(make_sample(), np.random.default_rng(0))["targets"]["semseg"][corner] == 0).all()


def test_padding_is_centred_and_restored():
    pad = DenseTransform(TASKS, size=(40, 64), train=False, fit="pad")
    sample = make_sample(31, 48)
    result = pad(sample, np.random.default_rng(0))
    assert result["inputs"].shape == (3, 40, 64)
    restored = pad.restore(result["targets"]["semseg"], (31, 48))
    np.testing.assert_array_equal(restored.numpy(), sample["targets"]["semseg"])
    assert (result["targets"]["semseg"] == 255).sum() == 40 * 64 - 31 * 48 + 6
    with pytest.raises(ArgumentError, match="size must be at least the image's"):
        DenseTransform(TASKS, size=(16, 64), train=False, fit="pad")(
            sample, np.random.default_rng(0)
        )


def test_resizing_is_restored():
    resize = DenseTransform(TASKS, size=(16, 24), train=False)
    assert resize.restore(torch.rand(3, 16, 24), (31, 48)).shape == (3, 31, 48)
    labels = torch.randint(0, 5, (16, 24), dtype=torch.uint8)
    restored = resize.restore(labels, (32, 48))
    assert torch.equal(restored[::2, ::2], labels)


def test_half_size_follows_the_image():
    """Image and maps are sampled at the same places: a coloured square stays under its label."""
    sample = make_sample(64, 64)
    sample["inputs"][:] = 0
    sample["targets"]["semseg"][:] = 0
    sample["inputs"][16:40, 8:32] = 255
    sample["targets"]["semseg"][16:40, 8:32] = 1
    for size in ((32, 32), (128, 96), (10, 9)):
        warp = DenseTransform(TASKS, size=size, train=True, rotate=30.0, scale=(0.8, 1.5), flip=0.5)
        for seed in range(4):
            result = warp(sample, np.random.default_rng(seed))
            labels = result["targets"]["semseg"]
            bright = result["inputs"][0] > (0.75 - 0.485) / 0.229
            dark = result["inputs"][0] < (0.25 - 0.485) / 0.229
            assert (labels[bright] != 0).all()
            assert ((labels != 1) | ~dark).float().mean() > 0.99


def test_random_crops_avoid_one_dominant_class():
    sample = make_sample(64, 64)
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 44:] = 1
    sample["targets"]["semseg"] = labels
    tasks = {"parts": HumanParts(), **TASKS}

    def share(dominance):
        crop = DenseTransform(
            tasks, size=(24, 24), train=True, fit="pad", dominance=dominance, color=0.0
        )
        found = [crop(sample, np.random.default_rng(seed)) for seed in range(40)]
        return np.mean([(f["targets"]["semseg"] == 0).float().mean() >= 0.75 for f in found])

    assert share(1.0) > 0.5
    assert share(0.75) < 0.1


def test_colour_touches_the_image_only_and_keeps_its_range():
    sample = make_sample()
    result = DenseTransform(TASKS, train=True, color=1.0)(sample, np.random.default_rng(1))
    for name, target in arrays(result)["targets"].items():
        np.testing.assert_array_equal(target, sample["targets"][name])
    assert not np.array_equal(arrays(result)["inputs"], sample["inputs"])
    changed = [
        distort_colors(sample["inputs"], 1.0, np.random.default_rng(seed)) for seed in range(20)
    ]
    assert all(c.dtype == np.uint8 and c.shape == (32, 48, 3) for c in changed)
    weak = distort_colors(sample["inputs"], 0.0, np.random.default_rng(3))
    np.testing.assert_array_equal(weak, sample["inputs"])


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_same_generator_gives_the_same_sample(recipe):
    transform = DenseTransform.recipe(TASKS, *recipe, train=True, size=(40, 40))
    first, again, other = (
        transform(make_sample(), np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    assert_same(first, again)
    assert not torch.equal(first["inputs"], other["inputs"])
    assert first["inputs"].shape == (3, 40, 40)


def test_unknown_recipe_is_named():
    with pytest.raises(ArgumentError, match="recipe must be one of"):
        DenseTransform.recipe(TASKS, "survey", "kitti", train=True)


def test_partial_labels_and_undeclared_tasks():
    sample = make_sample()
    del sample["targets"]["depth"]
    sample["targets"]["unused"] = np.zeros((3, 3))
    result = DenseTransform(TASKS, train=True, flip=0.5)(sample, np.random.default_rng(0))
    assert set(result["targets"]) == set(TASKS) - {"depth"}
    assert result["targets"]["scene"] == 2


def test_wide_and_signed_labels_survive():
    sample = make_sample()
    sample["targets"]["semseg"] = np.full((32, 48), 40000, np.int64)
    result = DenseTransform(TASKS, train=True, scale=(2.0, 2.0))(sample, np.random.default_rng(0))
    assert result["targets"]["semseg"].dtype == torch.int64
    assert (result["targets"]["semseg"] == 40000).all()


def test_a_mask_of_another_size_is_named():
    sample = make_sample()
    sample["targets"]["depth"] = np.zeros((31, 48), np.float32)
    with pytest.raises(SampleSizeError, match=r"'depth' has \(31, 48\), the image \(32, 48\).*'a'"):
        DenseTransform(TASKS, train=True)(sample, np.random.default_rng(0))


def test_images_must_be_rgb_bytes():
    sample = make_sample()
    sample["inputs"] = sample["inputs"].astype(np.float32)
    with pytest.raises(ArgumentError, match="uint8 image"):
        DenseTransform(TASKS, train=True)(sample, np.random.default_rng(0))


def test_operations_say_what_evaluation_does():
    held = DenseTransform(TASKS, size=(16, 24), train=False, interpolation="cubic").operations()
    assert json.loads(json.dumps(held)) == held
    assert [step["op"] for step in held["operations"]] == ["decode", "resize", "scale", "layout"]
    resize = held["operations"][1]
    assert (resize["size"], resize["kernel"], resize["reduce"]) == ([16, 24], "cubic", "area")
    assert held["normalization"]["mean"] == list(IMAGENET_MEAN)
    pad = DenseTransform(TASKS, size=(40, 64), train=False, fit="pad").operations()["operations"]
    assert (pad[1]["op"], pad[1]["fill"]) == ("pad", [124, 116, 104])
    free = DenseTransform(TASKS, train=False).operations()["operations"]
    assert [step["op"] for step in free] == ["decode", "scale", "layout"]
    with pytest.raises(ArgumentError, match="train must be false"):
        DenseTransform(TASKS, train=True).operations()
