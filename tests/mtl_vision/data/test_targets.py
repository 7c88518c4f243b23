"""Sources are described without contradiction, and cells are values of their task."""

import numpy as np
import pytest

from mtl_core.errors import ArgumentError, LabelError, UnknownNameError
from mtl_core.tasks.classification import Classification
from mtl_core.tasks.multilabel import MultiLabel
from mtl_core.tasks.regression import Regression
from mtl_vision.data.targets import TargetSource, check_sources, class_presence, read_table
from mtl_vision.tasks import BoundaryDetection, DepthEstimation, SemanticSegmentation


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of folder, csv and derive"),
        ({"folder": "a", "csv": "b"}, "exactly one"),
        ({"csv": "a.csv"}, "column"),
        ({"derive": "presence"}, "source must be given with derive"),
        ({"folder": "a", "source": "b"}, "source"),
        ({"derive": "edges", "source": "b"}, "derive must be a known name"),
        ({"folder": "a", "scale": 0.0}, "scale"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TargetSource(**fields)


def test_presence_may_ask_for_a_share_of_the_labelled_pixels():
    labels = np.array([[0, 0, 0, 1], [2, 2, 255, 255]], np.uint8)
    found = [
        class_presence(labels, 3, task="p", key="k", min_share=share).tolist()
        for share in (0.0, 0.2, 0.4, 0.6)
    ]
    assert found == [[1, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0]]
    with pytest.raises(ArgumentError, match=r"min_share must lie in \[0, 1\], found 2"):
        TargetSource(derive="presence", source="semseg", min_share=2)


def test_class_presence():
    labels = np.asarray([[0, 2, 255], [2, 2, 4]])
    np.testing.assert_array_equal(class_presence(labels, 5, task="p", key="k"), [1, 0, 1, 0, 1])
    nothing = np.full((2, 2), 255)
    assert class_presence(nothing, 3, task="p", key="k").sum() == 0
    with pytest.raises(LabelError, match=r"'p' must derive from classes in 0..3, found \[4\] in k"):
        class_presence(labels, 4, task="p", key="k")


TABLE = """name,kind,score,x,y,wet,dark
a,cat,0.5,1,2,1,0
b.jpg,1,,3,4,,1
c,,2e-1,5,,,
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(TABLE)
    return path


def source(*columns, **fields):
    return TargetSource(csv="labels.csv", column=columns, **fields)


def test_classes_by_index_and_by_name(table):
    task = Classification(num_classes=2, class_names=("cat", "dog"))
    assert read_table(table, source("kind"), task, "t") == {"a": 0, "b.jpg": 1}


def test_numbers_and_vectors(table):
    values = read_table(table, source("score"), Regression(), "t")
    assert set(values) == {"a", "c"}
    assert values["a"].shape == ()
    assert values["c"] == np.float32(0.2)
    values = read_table(table, source("x", "y"), Regression(dim=2), "t")
    assert set(values) == {"a", "b.jpg"}
    np.testing.assert_array_equal(values["b.jpg"], [3, 4])


def test_unknown_labels_of_several(table):
    values = read_table(table, source("wet", "dark"), MultiLabel(num_labels=2), "t")
    assert {k: v.tolist() for k, v in values.items()} == {"a": [1, 0], "b.jpg": [-1, 1]}


def test_bad_cells_are_named(table):
    with pytest.raises(LabelError, match=r"'cat' in labels\.csv, row 'a'"):
        read_table(table, source("kind"), Classification(num_classes=2), "t")
    with pytest.raises(LabelError, match="numbers, found"):
        read_table(table, source("kind"), Regression(), "t")
    with pytest.raises(ArgumentError, match="come from a folder"):
        read_table(table, source("x"), DepthEstimation(), "t")


def test_bad_tables_are_named(table, tmp_path):
    with pytest.raises(UnknownNameError, match=r"'scor'.*Did you mean score"):
        read_table(table, source("scor"), Regression(), "t")
    with pytest.raises(UnknownNameError, match="'file'"):
        read_table(table, source("score", name_column="file"), Regression(), "t")
    with pytest.raises(ArgumentError, match="existing file"):
        read_table(tmp_path / "none.csv", source("score"), Regression(), "t")
    table.write_text(TABLE + "a,cat,1,1,1,1,1\n")
    with pytest.raises(ArgumentError, match="every image once, found 'a'"):
        read_table(table, source("score"), Regression(), "t")


def test_derived_targets_fit_their_task_and_source():
    labels = TargetSource(folder="labels")
    edges = TargetSource(derive="boundaries", source="semseg")
    presence = TargetSource(derive="presence", source="semseg")
    targets = {"semseg": labels, "edges": edges, "presence": presence}
    tasks = {"edges": BoundaryDetection(), "presence": MultiLabel(num_labels=3)}
    check_sources(targets, tasks)
    check_sources(targets, {})
    with pytest.raises(UnknownNameError, match=r"'semsg'.*semseg"):
        check_sources({**targets, "edges": TargetSource(derive="presence", source="semsg")}, {})
    with pytest.raises(ArgumentError, match="have a folder"):
        check_sources({"a": edges, "semseg": TargetSource(csv="x", column="y")}, {})
    with pytest.raises(ArgumentError, match="MultiLabel"):
        check_sources(targets, {"presence": SemanticSegmentation(num_classes=3)})
    with pytest.raises(ArgumentError, match="BoundaryDetection"):
        check_sources(targets, {"edges": MultiLabel(num_labels=3)})
