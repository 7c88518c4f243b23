"""Prediction without torch: pictures, rows, batches, variants, and mistakes."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from toy_folder import (
    IMAGE_SHAPES,
    PREPROCESS,
    SIZE,
    TABLE_WIDTHS,
    expected_image,
    expected_table,
    image_folder,
    image_graph,
    table_folder,
    trees_folder,
)

from export.manifest import FolderError
from export.preprocess import PictureError, Step, UnreadablePictureError, resize
from export.runtime import Predictor, open_graph, unit_length
from export.table_files import TableError
from mtl_core.errors import ArgumentError, UnknownNameError

RNG = np.random.default_rng(0)
ROWS = {"age": [45, None, 40], "income": [None, 2.0, 0], "city": [1.0, "Bonn", None]}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("images") / "model")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return table_folder(tmp_path_factory.mktemp("tables") / "model")


def picture(*size):
    return RNG.integers(0, 256, (*size, 3)).astype(np.uint8)


def network_input(values):
    return resize(values, SIZE, "area").transpose(2, 0, 1)[None] / np.float32(255)


def test_raw_runs_give_what_the_graphs_compute(images):
    image = RNG.random((9, 3, *SIZE)).astype(np.float32)
    for batch in (1, 2, 9, 50):
        found = Predictor(images, batch=batch).run({"image": image})
        assert list(found) == list(IMAGE_SHAPES)
        for task, values in found.items():
            np.testing.assert_allclose(values, expected_image(task, image), atol=1e-5)


def test_maps_return_in_the_size_of_the_picture(images):
    values = picture(60, 90)
    found = Predictor(images).predict(values)
    raw = {task: expected_image(task, network_input(values))[0] for task in found}
    assert {t: v.shape for t, v in found.items()} == {
        "semseg": (4, 60, 90), "depth": (60, 90), "normals": (3, 60, 90), "scene": (2,),
    }  # fmt: skip
    depth = resize(raw["depth"].astype(np.float32), (60, 90))
    np.testing.assert_allclose(found["depth"], depth, atol=1e-5)
    np.testing.assert_allclose(found["semseg"].sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found["normals"], axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(found["scene"], raw["scene"], atol=1e-5)


def test_classes_are_those_of_the_restored_probabilities(images):
    predictor = Predictor(images, tasks=["semseg"])
    for size in [(60, 90), (24, 32), (3, 200)]:
        ((raw, path),) = predictor.unrestored([picture(*size)])
        expected = predictor.restored("semseg", raw["semseg"], path).argmax(0)
        np.testing.assert_array_equal(predictor.classes(raw["semseg"], path), expected)
    crop = [Step((40, 40), (24, 32), (8, 4))]
    classes = predictor.classes(raw["semseg"], crop)
    assert (classes >= 0).sum() == 24 * 32


def test_files_pictures_and_arrays_are_one(images, tmp_path):
    values = picture(33, 47)
    Image.fromarray(values).save(tmp_path / "p.png")
    predictor = Predictor(images, tasks=["depth"])
    expected = predictor.predict(values)["depth"]
    for given in (tmp_path / "p.png", str(tmp_path / "p.png"), Image.fromarray(values)):
        np.testing.assert_array_equal(predictor.predict(given)["depth"], expected)


def test_many_pictures_of_any_sizes_in_any_batches(images):
    given = [picture(h, w) for h, w in [(24, 32), (1, 1), (50, 20), (24, 32), (7, 80)]]
    alone = [Predictor(images).predict(values) for values in given]
    for batch in (1, 2, 8):
        found = list(Predictor(images, batch=batch).predict_each(iter(given)))
        for left, right in zip(found, alone, strict=True):
            assert {k: v.shape for k, v in left.items()} == {k: v.shape for k, v in right.items()}
            for task in left:
                np.testing.assert_allclose(left[task], right[task], atol=1e-6)
    assert list(Predictor(images).predict_each([])) == []


def test_only_the_graphs_of_the_chosen_tasks_are_opened(images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "model")
    (folder / "semseg.onnx").unlink()
    found = Predictor(folder, tasks=["scene", "depth"]).predict(picture(5, 5))
    assert list(found) == ["scene", "depth"]
    with pytest.raises(FolderError, match=r"semseg.onnx must be a graph that ONNX Runtime"):
        Predictor(folder)


def test_variants(images):
    values = picture(24, 32)
    first, second = (Predictor(images, v).predict(values) for v in ("fp32", "int8-dynamic"))
    assert 0 < np.abs(first["depth"] - second["depth"]).max() < 0.01


def test_mistakes_are_named(images, tmp_path):
    with pytest.raises(UnknownNameError, match=r"variant .* Did you mean int8-dynamic\?"):
        Predictor(images, "int8-dynamc")
    with pytest.raises(UnknownNameError, match=r"task must be .* Did you mean depth\?"):
        Predictor(images, tasks=["detph"])
    with pytest.raises(ArgumentError, match="threads must be at least 1, found 0"):
        Predictor(images, threads=0)
    with pytest.raises(FolderError, match="an artefact folder must hold"):
        Predictor(tmp_path)
    predictor = Predictor(images, tasks=["depth"])
    with pytest.raises(UnreadablePictureError, match=r"absent.png"):
        predictor.predict("absent.png")
    with pytest.raises(ArgumentError, match="rows must go to a model of tables"):
        list(predictor.predict_pieces(ROWS))
    with pytest.raises(UnknownNameError, match=r"Did you mean imag\?"):
        predictor.run({"imag": np.zeros((1, 3, *SIZE), np.float32)})
    with pytest.raises(
        ArgumentError, match=r"input 'image' must have shape .* found \[1, 3, 5, 5\]"
    ):
        predictor.run({"image": np.zeros((1, 3, 5, 5), np.float32)})


def test_without_a_resize_other_sizes_are_refused(tmp_path):
    steps = [step for step in PREPROCESS["operations"] if step["op"] != "resize"]
    folder = image_folder(tmp_path / "model", {**PREPROCESS, "operations": steps})
    predictor = Predictor(folder, tasks=["depth"])
    assert predictor.predict(picture(*SIZE))["depth"].shape == SIZE
    Image.fromarray(picture(5, 6)).save(tmp_path / "p.png")
    with pytest.raises(PictureError, match=r"p.png must be 24 high and 32 wide.* found 5 by 6"):
        predictor.predict(tmp_path / "p.png")


def test_a_fixed_batch_is_filled_up(images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "model")
    image_graph(folder / "depth.onnx", "depth", batch=4)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["variants"][0]["static_batch"] = 4
    (folder / "manifest.json").write_text(json.dumps(manifest))
    predictor = Predictor(folder, tasks=["depth"])
    image = RNG.random((6, 3, *SIZE)).astype(np.float32)
    np.testing.assert_allclose(
        predictor.run({"image": image})["depth"], expected_image("depth", image), atol=1e-5
    )


def test_rows_are_standardised_and_encoded(tables):
    found = Predictor(tables).predict(ROWS)
    numeric = np.array([[0.5, np.nan], [np.nan, 2], [0, 0]])
    codes = np.array([[2], [0], [1]])
    assert {name: v.shape for name, v in found.items()} == {
        n: (3, w) for n, w in TABLE_WIDTHS.items()
    }
    for task, values in found.items():
        np.testing.assert_allclose(values, expected_table(task, numeric, codes), atol=1e-5)


def test_rows_from_files_in_any_batches(tables, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("city,income,extra,age\n1,,x,45\nBonn,2.0,y,\n,0,z,40\n")
    expected = Predictor(tables).predict(path)
    for batch in (1, 2):
        found = Predictor(tables, batch=batch).predict(str(path))
        for task, values in found.items():
            np.testing.assert_allclose(values, expected[task], rtol=1e-6)
    path.write_text("city,income,age\n")
    assert {n: v.shape for n, v in Predictor(tables).predict(path).items()} == {
        name: (0, width) for name, width in TABLE_WIDTHS.items()
    }
    with pytest.raises(TableError, match=r"Did you mean incme\?"):
        Predictor(tables).predict({**{k: v for k, v in ROWS.items() if k != "income"}, "incme": []})
    with pytest.raises(ArgumentError, match="pictures must go to a model of images"):
        next(Predictor(tables).predict_each([picture(3, 3)]))
    arrays = {"numeric": np.zeros((2, 2), np.float32), "categorical": np.zeros((3, 1), np.int64)}
    with pytest.raises(ArgumentError, match="inputs must be equally long"):
        Predictor(tables).run(arrays)


def test_trees_predict_every_task_for_every_row(tmp_path):
    folder = trees_folder(tmp_path / "model")
    predictor = Predictor(folder)
    found = predictor.predict(ROWS)
    total = np.array([2 + 0.5, 0 + 2.0, 0])
    for i, task in enumerate(predictor.tasks):
        np.testing.assert_allclose(found[task][:, 0], total + i, atol=1e-6)
    unknown = Predictor(folder, tasks=["unknown"]).predict(ROWS)
    np.testing.assert_allclose(unknown["unknown"][:, 0], total - 1, atol=1e-6)
    raw = predictor.run({"features": np.zeros((2, 3), np.float32), "task": np.array([1, 0])})
    np.testing.assert_allclose(raw["east"][:, 0], [1, 0])


def test_damaged_descriptions_and_graphs_are_named(images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "model")
    (folder / "depth.onnx").write_bytes(b"no graph")
    with pytest.raises(FolderError, match=r"depth.onnx must be a graph"):
        open_graph(folder / "depth.onnx")
    (folder / "labels.json").write_text("{")
    with pytest.raises(FolderError, match=r"labels.json must be JSON"):
        Predictor(folder)
    (folder / "labels.json").write_text("[]")
    with pytest.raises(FolderError, match=r"labels.json must hold an object"):
        Predictor(folder)


def test_unit_length():
    vectors = np.array([3.0, 0, 4])[:, None, None] * np.ones((3, 2, 2))
    np.testing.assert_allclose(unit_length(vectors)[:, 0, 0], [0.6, 0, 0.8])
    assert (unit_length(np.zeros((3, 1, 1))) == 0).all()
