import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

import mtl_vision
from mtl_vision.rendering import CLASS_NAMES, Draws, render
from mtl_vision.rendering.scene import FACES, SALIENT_CLASSES
from mtl_vision.rendering.view import PRESENT, salient

SIZE = 64
FIELDS = ("rgb", "semseg", "depth", "normals", "saliency", "presence", "instance")


@pytest.fixture(scope="module")
def views():
    return [render(Draws([3, 0, index]), SIZE, SIZE) for index in range(24)]


def points(view):
    """Back-projected pixels (H, W, 3) in the camera's frame: x right, y up, z backwards."""
    height, width = view.depth.shape
    x = (np.arange(width) + 0.5 - width / 2) / view.focal
    y = (height / 2 - np.arange(height) - 0.5) / view.focal
    depth = view.depth.astype(np.float64)
    return np.stack((x * depth, y[:, None] * depth, -depth), axis=-1)


def test_shapes_types_and_ranges(views):
    for view in views:
        assert view.rgb.shape == (SIZE, SIZE, 3)
        assert view.rgb.dtype == view.semseg.dtype == view.saliency.dtype == np.uint8
        assert view.depth.dtype == view.normals.dtype == np.float32
        assert view.semseg.max() < len(CLASS_NAMES)
        assert view.depth.min() > 0.05
        assert view.depth.max() < 9
        assert 0.03 < view.rgb.mean() / 255 < 0.9
        np.testing.assert_allclose(np.linalg.norm(view.normals, axis=-1), 1, atol=1e-5)


def test_normals_face_the_camera(views):
    for view in views:
        assert ((points(view) * view.normals).sum(-1) < 0).all()


def test_normals_follow_from_depth(views):
    """On a face, the cross product of the back-projected neighbours' differences is its normal."""
    errors = []
    for view in views:
        p, n, same = points(view), view.normals, np.ones((SIZE - 2, SIZE - 2), bool)
        for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
            shifted = slice(dy, SIZE - 2 + dy), slice(dx, SIZE - 2 + dx)
            same &= view.instance[shifted] == view.instance[1:-1, 1:-1]
            same &= (n[shifted] == n[1:-1, 1:-1]).all(-1)
        across, down = p[1:-1, 2:] - p[1:-1, :-2], p[:-2, 1:-1] - p[2:, 1:-1]
        # Two parallel faces of one thing (the rungs of a shelf) share normals but not a plane.
        n = n[1:-1, 1:-1]
        level = [np.abs((step * n).sum(-1)) < 1e-3 for step in (across, down)]
        flat = same & level[0] & level[1]
        assert flat.sum() > 0.9 * same.sum()
        assert same.mean() > 0.3
        cross = np.cross(across, down)[flat]
        cross /= np.linalg.norm(cross, axis=-1, keepdims=True)
        errors.append(np.degrees(2 * np.arcsin(np.linalg.norm(cross - n[flat], axis=-1) / 2)))
    errors = np.concatenate(errors)
    assert np.median(errors) < 0.05
    assert np.quantile(errors, 0.999) < 2


def test_curved_normals_follow_from_depth():
    """On balls and mantles the same holds up to the curvature between neighbours."""
    errors = []
    for index in range(40):
        view = render(Draws([11, 0, index]), 128, 128)
        p, n = points(view), view.normals
        inner = np.isin(view.semseg, [CLASS_NAMES.index(c) for c in ("plant", "lamp")])
        for axis in (0, 1):
            for shift in (-1, 1):
                inner &= np.roll(view.instance, shift, axis) == view.instance
                inner &= (np.roll(n, shift, axis) * n).sum(-1) > 0.97
        inner[[0, -1]] = inner[:, [0, -1]] = False
        across = np.roll(p, -1, 1) - np.roll(p, 1, 1)
        down = np.roll(p, 1, 0) - np.roll(p, -1, 0)
        cross = np.cross(across, down)[inner]
        cross /= np.linalg.norm(cross, axis=-1, keepdims=True)
        errors.append(1 - (cross * n[inner]).sum(-1))
    errors = np.concatenate(errors)
    assert len(errors) > 1000
    assert np.degrees(np.arccos(1 - np.median(errors))) < 3


def test_room_faces_are_planes_at_right_angles(views):
    for view in views:
        normals = [
            view.normals[view.instance == face].astype(np.float64)
            for face in range(FACES)
            if (view.instance == face).any()
        ]
        for group in normals:
            np.testing.assert_allclose(group, np.broadcast_to(group[0], group.shape), atol=1e-6)
        for i, first in enumerate(normals):
            for second in normals[i + 1 :]:
                cosine = float(first[0] @ second[0])
                assert min(abs(cosine), abs(cosine + 1)) < 1e-5
        floor = view.instance == 4
        if floor.any():
            heights = points(view)[floor] @ view.normals[floor][0].astype(np.float64)
            assert heights.max() - heights.min() < 1e-3
            assert -1.8 < heights.mean() < -0.95


def test_a_finer_image_shows_the_same_scene():
    """Depth at a pixel does not depend on the resolution, where the surface is the same."""
    coarse, fine = (render(Draws([3, 0, 1]), s, s) for s in (32, 96))
    middle = slice(1, None, 3)
    np.testing.assert_allclose(coarse.depth, fine.depth[middle, middle], rtol=1e-4)
    np.testing.assert_array_equal(coarse.instance, fine.instance[middle, middle])


def test_classes_and_things_vary(views):
    seen = np.unique(np.concatenate([view.semseg.ravel() for view in views]))
    assert len(seen) == len(CLASS_NAMES)
    assert np.mean([view.saliency.any() for view in views]) > 0.8
    for view in views:
        shares = np.bincount(view.semseg.ravel(), minlength=len(CLASS_NAMES)) / view.semseg.size
        np.testing.assert_array_equal(view.presence, shares >= PRESENT)
        if view.saliency.any():
            assert len(np.unique(view.instance[view.saliency == 1])) == 1
            assert np.isin(view.semseg[view.saliency == 1], SALIENT_CLASSES).all()


def test_surfaces_are_textured(views):
    """Within a face, colour varies several times more than the camera's noise."""
    spread = [
        view.rgb[view.instance == face].astype(float).std(0).mean()
        for view in views
        for face in range(FACES)
        if (view.instance == face).sum() > 100
    ]
    assert np.median(spread) > 10


def test_salient_is_the_thing_nearest_the_middle():
    sofa = CLASS_NAMES.index("sofa")
    classes = [0, 0, 0, 0, 1, 2, sofa, sofa, CLASS_NAMES.index("picture")]
    instance = np.full((20, 20), 4, np.uint8)
    instance[8:12, 8:12] = 6  # 16 pixels in the middle
    instance[:3, :6] = 7  # 18 pixels in a corner
    instance[12:16, 5:15] = 8  # hangs, does not stand
    np.testing.assert_array_equal(salient(instance, classes), instance == 6)
    mirrored = np.ascontiguousarray(instance[:, ::-1])
    np.testing.assert_array_equal(salient(mirrored, classes), mirrored == 6)
    assert not salient(np.full((20, 20), 4, np.uint8), classes).any()


def digest() -> str:
    value = hashlib.sha256()
    for index in range(3):
        view = render(Draws([0, 0, index]), 48, 64)
        for name in FIELDS:
            value.update(np.ascontiguousarray(getattr(view, name)).tobytes())
    return value.hexdigest()


GOLDEN = "ea9c24f6c71a97ffa89fc73d9783c268a827f75dccaab44797b20a799b8302dd"
"""Changes only together with `VERSION`, on every machine."""


def test_bytes_depend_on_the_seed_alone():
    assert digest() == digest() == GOLDEN


def test_bytes_do_not_depend_on_the_instruction_set():
    """The same in a new process in which NumPy may not use its vector units."""
    program = (
        "import hashlib, sys, types\n"
        "import numpy as np\n"
        "package = types.ModuleType('mtl_vision')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "sys.modules['mtl_vision'] = package\n"
        "from mtl_vision.rendering import Draws, render\n"
        "value = hashlib.sha256()\n"
        "for index in range(3):\n"
        "    view = render(Draws([0, 0, index]), 48, 64)\n"
        f"    for name in {FIELDS!r}:\n"
        "        value.update(np.ascontiguousarray(getattr(view, name)).tobytes())\n"
        "print(value.hexdigest())\n"
    )
    found = np._core._multiarray_umath
    disabled = " ".join(f for f in found.__cpu_dispatch__ if found.__cpu_features__.get(f))
    result = subprocess.run(
        [sys.executable, "-c", program, *mtl_vision.__path__],
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == GOLDEN


def pixels(views, seed):
    """Colour, position and label of 300 random pixels per view."""
    rng = np.random.default_rng(seed)
    rows = []
    for view in views:
        y, x = rng.integers(0, SIZE, (2, 300))
        rows.append(np.c_[view.rgb[y, x] / 255, y / SIZE, x / SIZE, view.semseg[y, x]])
    return np.concatenate(rows)


def test_colour_alone_tells_little():
    """In new scenes, a pixel's colour does no better than always naming the most frequent class.

    Position, which is the simplest context there is, tells several times as much.
    """
    train = pixels([render(Draws([7, 0, i]), SIZE, SIZE) for i in range(60)], 0)
    test = pixels([render(Draws([7, 2, i]), SIZE, SIZE) for i in range(40)], 1)
    majority = np.mean(test[:, 5] == np.bincount(train[:, 5].astype(int)).argmax())
    scores = {}
    for name, columns in {"colour": slice(0, 3), "position": slice(3, 5)}.items():
        models = (
            KNeighborsClassifier(50),
            RandomForestClassifier(30, min_samples_leaf=20, random_state=0),
        )
        scores[name] = max(
            model.fit(train[:, columns], train[:, 5]).score(test[:, columns], test[:, 5])
            for model in models
        )
    assert scores["colour"] < majority + 0.03
    assert scores["position"] > majority + 0.15
