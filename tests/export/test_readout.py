"""Predictions as pictures and words, against those of the training side."""

import numpy as np
import pytest

from export.readout import STRIPES, columns, draw, short, summary
from mtl_core.callbacks.prediction_writer import summary as trained_summary
from mtl_core.tasks import Classification, MultiLabel, Regression
from mtl_tabular.callbacks.prediction_writer import prediction_frame
from mtl_tabular.tasks import BinaryTarget, MulticlassTarget, NumericTarget
from mtl_vision import visualize
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

RNG = np.random.default_rng(0)


def probabilities(*shape):
    values = RNG.random(shape).astype(np.float32)
    return values / values.sum(0)


@pytest.mark.parametrize(("task", "values"), [
    (SemanticSegmentation(num_classes=5), probabilities(5, 9, 14)),
    (BoundaryDetection(), RNG.random((9, 14)).astype(np.float32)),
    (SaliencyDetection(), RNG.random((9, 14)).astype(np.float32)),
    (SurfaceNormals(), RNG.normal(size=(3, 9, 14)).astype(np.float32) / 2),
    (DepthEstimation(), RNG.random((9, 14)).astype(np.float32) * 5 + 0.1),
    (DepthEstimation(), np.zeros((9, 14), np.float32)),
    (DepthEstimation(), np.where(RNG.random((30, 70)) < 0.3, 0, 2).astype(np.float32)),
])  # fmt: skip
def test_pictures_are_those_of_training(task, values):
    expected = visualize.draw(task, values)
    found = draw(task.readout(), values)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    # Depth takes its colours from 17 of matplotlib's 256.
    bound = 8 if isinstance(task, DepthEstimation) else 0
    assert np.abs(found.astype(int) - expected).max() <= bound


def test_large_pictures_are_those_of_training_too():
    """They are drawn in pieces of 128 rows."""
    for task, values in (
        (SurfaceNormals(), RNG.normal(size=(3, 300, 20)) * (RNG.random((300, 20)) < 0.5)),
        (SemanticSegmentation(num_classes=5), probabilities(5, 300, 20)),
    ):
        np.testing.assert_array_equal(draw(task.readout(), values), visualize.draw(task, values))


def test_unknown_pixels_are_striped_whatever_the_kind():
    for readout in (
        {"kind": "segmentation", "palette": [[1, 2, 3], [4, 5, 6]], "classes": ["a", "b"]},
        {"kind": "depth"},
        {"kind": "normals"},
        {"kind": "saliency"},
        {"kind": "SomethingElse"},
    ):
        channels = {"segmentation": 2, "normals": 3}.get(readout["kind"], 1)
        values = np.ones((channels, 12, 20), np.float32)
        values[..., :10] = np.nan
        picture = draw(readout, values)
        assert {tuple(p) for p in picture[:, :10].reshape(-1, 3).tolist()} == set(STRIPES)
        assert not {tuple(p) for p in picture[:, 10:].reshape(-1, 3).tolist()} & set(STRIPES)
        assert np.isfinite([v for v in summary("t", readout, values).values() if v != "a"]).all()


@pytest.mark.parametrize(("task", "values"), [
    (Classification(num_classes=3, class_names=("a", "b", "c")), probabilities(3)),
    (Classification(num_classes=3), probabilities(3)),
    (MultiLabel(num_labels=2), RNG.random(2)),
    (Regression(), RNG.random(1)),
    (Regression(dim=3), RNG.random(3)),
    (DepthEstimation(), RNG.random((4, 5))),
    (SurfaceNormals(), RNG.random((3, 4, 5))),
])  # fmt: skip
def test_words_are_those_of_training(task, values):
    expected = trained_summary("t", task, values)
    found = summary("t", task.readout(), values)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert str(found[key]) == str(value) or found[key] == pytest.approx(value)


def test_a_segmentation_is_summed_up_by_its_most_frequent_class():
    values = np.zeros((3, 2, 4))
    values[2], values[1, 0, 0] = 0.5, 1
    readout = {"kind": "segmentation", "classes": ["a", "b", "c"]}
    assert summary("s", readout, values) == {"s": "c", "s/share": 7 / 8}


def test_rows_read_as_those_of_training():
    import torch

    tasks = {
        "sale": BinaryTarget(classes=("no", "yes")),
        "tier": MulticlassTarget(classes=("low", "mid", "high")),
        "price": NumericTarget(),
    }
    values = {
        "sale": np.array([[0.5], [0.51], [0.2]], np.float32),
        "tier": probabilities(3, 3).T,
        "price": RNG.normal(size=(3, 1)).astype(np.float32),
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in values.items()}
    expected = prediction_frame(["0", "1", "2"], tensors, tasks)
    found = {"key": ["0", "1", "2"]}
    for name, task in tasks.items():
        found |= columns(name, task.readout(), values[name])
    assert list(found) == list(expected.columns)
    for name in found:
        assert expected[name].tolist() == found[name]


def test_rows_of_other_kinds_and_empty_tables():
    two = np.array([[0.1, 0.9]])
    assert columns("t", {"kind": "multilabel", "classes": ["a", "b"]}, two) == {
        "t/a": [0.1], "t/b": [0.9],
    }  # fmt: skip
    assert columns("t", {"kind": "regression"}, two) == {"t/0": [0.1], "t/1": [0.9]}
    empty = columns("t", {"kind": "multiclass", "classes": ["a", "b"]}, np.zeros((0, 2)))
    assert empty == {"t": [], "t/a": [], "t/b": []}


def test_six_digits():
    assert [short(v) for v in (1 / 3, 7, "word", 1e-9)] == ["0.333333", 7, "word", "1e-09"]
