import numpy as np
import pytest
import torch

from mtl_core.errors import ArgumentError
from mtl_core.tasks import Classification, MultiLabel, Regression
from mtl_vision.tasks import (
    BoundaryDetection,
    DenseTask,
    DepthEstimation,
    HumanParts,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtl_vision.visualize import STRIPES, describe, draw

SIZE = (10, 12)
STRIPED = {tuple(colour) for colour in STRIPES}


def colours(picture):
    return {tuple(int(v) for v in pixel) for pixel in picture.reshape(-1, 3)}


def one_hot(labels, classes):
    return np.moveaxis(np.eye(classes, dtype=np.float32)[labels], -1, 0)


@pytest.mark.parametrize("task", [SemanticSegmentation(num_classes=7), HumanParts()])
def test_a_segmentation_and_its_certain_prediction_look_alike(task):
    labels = np.random.default_rng(0).integers(7, size=SIZE)
    target, prediction = draw(task, labels.astype(np.uint8)), draw(task, one_hot(labels, 7))
    assert target.dtype == np.uint8
    assert target.shape == (*SIZE, 3)
    np.testing.assert_array_equal(target, prediction)
    assert len(colours(target)) == 7


def test_a_palette_of_ones_own():
    task = SemanticSegmentation(num_classes=2, palette=((1, 2, 3), (4, 5, 6)))
    assert colours(draw(task, np.array([[0, 1]]))) == {(1, 2, 3), (4, 5, 6)}


@pytest.mark.parametrize(
    ("task", "known", "unknown"),
    [
        (SemanticSegmentation(num_classes=3), np.uint8(2), 255),
        (BoundaryDetection(), np.uint8(1), 255),
        (SaliencyDetection(), np.uint8(0), 255),
        (DepthEstimation(), np.float32(2), 0),
    ],
)
def test_unlabelled_pixels_and_only_they_are_striped(task, known, unknown):
    target = np.full(SIZE, known)
    target[:5] = unknown
    picture = draw(task, target)
    assert colours(picture[:5]) == STRIPED
    assert not colours(picture[5:]) & STRIPED


def test_normals_show_their_components():
    normals = np.zeros((3, *SIZE), np.float32)
    normals[0, :5], normals[1, 5:8] = 1, -1
    picture = draw(SurfaceNormals(), normals)
    assert colours(picture[:5]) == {(255, 128, 128)}
    assert colours(picture[5:8]) == {(128, 0, 128)}
    assert colours(picture[8:]) == STRIPED


def test_depth_keeps_to_its_limits():
    ramp = np.linspace(1, 5, 120, dtype=np.float32).reshape(SIZE)
    own = draw(DepthEstimation(), ramp)
    brightness = own.astype(float).sum(-1).ravel()
    assert (np.diff(brightness) <= 1).all(), "near is bright, far is dark"
    np.testing.assert_array_equal(draw(DepthEstimation(), ramp, limits=(1, 5)), own)
    np.testing.assert_array_equal(draw(DepthEstimation(), 2 * ramp, limits=(2, 10)), own)
    beyond = draw(DepthEstimation(), ramp + 100, limits=(1, 5))
    assert len(colours(beyond)) == 1


@pytest.mark.parametrize("task", [BoundaryDetection(), SaliencyDetection()])
def test_probabilities_are_grey(task):
    picture = draw(task, np.array([[0.0, 0.5, 1.0]], np.float32))
    assert picture.tolist() == [[[0, 0, 0], [128, 128, 128], [255, 255, 255]]]


def test_tensors_of_any_precision_are_welcome():
    values = torch.tensor([[0.0, 1.0]])
    expected = draw(BoundaryDetection(), values.numpy())
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        np.testing.assert_array_equal(draw(BoundaryDetection(), values.to(dtype)), expected)


def test_a_dense_task_without_a_drawing_is_grey():
    class Heat(DenseTask):
        out_channels, primary = 1, "none"

        def element_loss(self, prediction, target, valid):
            return prediction

        def metrics(self):
            return {}

    picture = draw(Heat(), np.array([[1.0, 2.0, 3.0]]))
    assert picture[0, :, 0].tolist() == [0, 128, 255]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ArgumentError, match="be dense"):
        draw(Classification(num_classes=2), np.zeros(2))
    with pytest.raises(ArgumentError, match="map"):
        draw(DepthEstimation(), np.zeros((1, *SIZE)))
    with pytest.raises(ArgumentError, match="normals"):
        draw(SurfaceNormals(), np.zeros(SIZE))


def test_words_for_a_class():
    task = Classification(num_classes=3, class_names=("cat", "dog", "fish"))
    probability = np.array([0.1, 0.7, 0.2])
    assert describe(task, 1, probability) == [("dog  70%", True)]
    assert describe(task, 2, probability) == [("dog  70%", False), ("true: fish", None)]
    assert describe(task, None, probability) == [("dog  70%", None)]


def test_words_for_labels_name_mistakes_first():
    task = MultiLabel(num_labels=4, class_names=("a", "b", "c", "d"))
    lines = describe(task, np.array([1, 1, 0, -1]), np.array([0.9, 0.2, 0.1, 0.8]))
    assert lines == [("b  20%", False), ("a  90%", True), ("d  80%", None)]
    assert describe(task, np.zeros(4), np.zeros(4)) == [("no label", True)]


def test_words_for_numbers():
    assert describe(Regression(), torch.tensor(2.0), torch.tensor([1.5])) == [
        ("1.5", None),
        ("true: 2", None),
    ]
