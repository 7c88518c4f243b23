import numpy as np
import pytest
from PIL import Image

from mtl_core.tasks import Classification
from mtl_vision.callbacks import ImagePredictionWriter
from mtl_vision.tasks import (
    BoundaryDetection,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

SIZE = (6, 8)


def probabilities() -> np.ndarray:
    """Class 1 on the left quarter, class 2 elsewhere."""
    held = np.zeros((3, *SIZE), dtype=np.float32)
    held[1, :, :2] = 1
    held[2, :, 2:] = 1
    return held


@pytest.mark.parametrize(
    ("task", "channels"),
    [
        (SemanticSegmentation(num_classes=3), 3),
        (DepthEstimation(), None),
        (SurfaceNormals(), 3),
        (BoundaryDetection(), None),
        (SaliencyDetection(), None),
    ],
)
def test_every_dense_task_gets_a_picture_of_its_size(tmp_path, task, channels):
    shape = SIZE if channels is None else (channels, *SIZE)
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    row = ImagePredictionWriter().draw(tmp_path, "a/b", {"t": task}, {"t": array})
    assert row == {"t/image": "images/a/b.t.png"}
    with Image.open(tmp_path / row["t/image"]) as picture:
        assert (picture.height, picture.width) == SIZE
        assert picture.mode == "RGB"


def test_segmentation_names_its_most_frequent_class():
    writer = ImagePredictionWriter()
    plain = SemanticSegmentation(num_classes=3)
    assert writer.summarize("s", plain, probabilities()) == {"s": 2, "s/share": 0.75}
    named = SemanticSegmentation(num_classes=3, class_names=("a", "b", "c"))
    assert writer.summarize("s", named, probabilities())["s"] == "c"


def test_other_maps_give_their_range():
    array = np.arange(48, dtype=np.float32).reshape(SIZE)
    row = ImagePredictionWriter().summarize("d", DepthEstimation(), array)
    assert row == {"d/mean": 23.5, "d/min": 0.0, "d/max": 47.0}


def test_no_pictures_of_vectors_nor_where_none_are_wanted(tmp_path):
    vector = {"c": Classification(num_classes=3)}
    writer = ImagePredictionWriter()
    assert writer.draw(tmp_path, "a", vector, {"c": np.array([0.2, 0.3, 0.5])}) == {}
    writer = ImagePredictionWriter(images=False)
    tasks = {"s": SemanticSegmentation(num_classes=3)}
    assert writer.draw(tmp_path, "a", tasks, {"s": probabilities()}) == {}
    assert not list(tmp_path.iterdir())
