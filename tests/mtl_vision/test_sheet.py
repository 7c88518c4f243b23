import numpy as np
import pytest
from matplotlib.figure import Figure

from mtl_core.errors import ArgumentError
from mtl_core.tasks import Classification
from mtl_vision.sheet import draw_sheet
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SemanticSegmentation,
    SurfaceNormals,
)

SIZE = (12, 16)
RNG = np.random.default_rng(0)
TASKS = {
    "semseg": SemanticSegmentation(num_classes=3, class_names=("sky", "road", "sign_symbol")),
    "depth": DepthEstimation(),
    "normals": SurfaceNormals(),
    "boundary": BoundaryDetection(),
    "scene": Classification(num_classes=2, class_names=("indoor", "outdoor")),
}


def images(count):
    return [RNG.integers(256, size=(*SIZE, 3)).astype(np.uint8) for _ in range(count)]


def columns(count):
    """Targets and predictions of `count` samples."""
    normal = np.zeros((3, *SIZE), np.float32)
    normal[2] = 1
    targets = {
        "semseg": [np.eye(*SIZE, dtype=np.uint8) for _ in range(count)],
        "depth": [np.full(SIZE, 2.0 + i, np.float32) for i in range(count)],
        "normals": [normal] * count,
        "boundary": [np.eye(*SIZE, dtype=np.uint8)] * count,
        "scene": [0] * count,
    }
    predictions = {
        "semseg": [np.moveaxis(np.eye(3)[t], -1, 0) for t in targets["semseg"]],
        "depth": [np.full(SIZE, 9.0)] * count,
        "normals": [normal] * count,
        "boundary": [np.eye(*SIZE)] * count,
        "scene": [np.array([0.25, 0.75])] * count,
    }
    return targets, predictions


def words(figure: Figure) -> set[str]:
    inside = [text.get_text() for axes in figure.axes for text in axes.texts]
    return {text.get_text() for text in figure.texts} | set(inside)


def pictures(figure: Figure) -> int:
    return sum(len(axes.images) for axes in figure.axes)


def test_a_sheet_holds_every_picture_and_says_what_they_are():
    figure = draw_sheet(images(2), *columns(2), TASKS, title="epoch 3")
    # An input and two pictures of four dense tasks a row; the depth scale and the ball below.
    assert pictures(figure) == 2 * (1 + 2 * 4) + 2
    found = words(figure)
    assert {"epoch 3", "input", "target", "prediction", *TASKS} <= found
    assert {"✗ outdoor  75%", "true: indoor"} <= found
    assert {"sky", "road"} <= found
    assert "sign symbol" not in found, "only classes that occur"
    assert {"2 m", "3 m"} <= found, "the scale is that of the targets"
    assert "unlabelled" not in found


def test_missing_targets_and_predictions_leave_a_note():
    targets, predictions = columns(2)
    targets["depth"][1] = None
    del predictions["boundary"], predictions["scene"]
    figure = draw_sheet(images(2), targets, predictions, TASKS)
    assert {"no target", "no prediction"} <= words(figure)
    assert pictures(figure) == 2 * (1 + 2 * 4) + 2 - 1 - 2


def test_unlabelled_pixels_are_explained():
    targets, predictions = columns(1)
    targets["boundary"][0] = np.full(SIZE, 255, np.uint8)
    assert "unlabelled" in words(draw_sheet(images(1), targets, predictions, TASKS))


def test_without_any_target():
    _, predictions = columns(1)
    figure = draw_sheet(images(1), {}, predictions, TASKS)
    assert {"no target", "outdoor  75%"} <= words(figure)


def test_a_predicted_depth_of_zero_is_not_striped():
    targets, predictions = columns(1)
    predictions["depth"][0] = np.zeros(SIZE)
    only = {"depth": TASKS["depth"]}
    figure = draw_sheet(images(1), targets, predictions, only)
    shown = figure.axes[2].images[0].get_array()
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("count", [3, 255])
def test_legends_wrap_inside_the_sheet(count):
    task = SemanticSegmentation(num_classes=count)
    labels = np.arange(SIZE[0] * SIZE[1], dtype=np.int64).reshape(SIZE) % count
    probability = np.moveaxis(np.eye(count)[labels], -1, 0)
    figure = draw_sheet(images(1), {"s": [labels]}, {"s": [probability]}, {"s": task})
    assert all(0 <= text.get_position()[1] <= 1 for text in figure.texts)
    assert all(0 <= text.get_position()[0] <= 1 for text in figure.texts)


def test_a_sheet_needs_a_row():
    with pytest.raises(ArgumentError, match="images"):
        draw_sheet([], {}, {}, TASKS)
