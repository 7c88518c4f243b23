"""`infer` writes what `predict` of training writes, and says what is wrong with inputs."""

import csv

import numpy as np
import pytest
from PIL import Image
from toy_folder import CLASSES, image_folder, table_folder, trees_folder

from export.__main__ import main
from export.infer import InputError, find_pictures, infer_tables, split_names
from export.runtime import Predictor

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("images") / "model")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return table_folder(tmp_path_factory.mktemp("tables") / "model")


@pytest.fixture
def pictures(tmp_path):
    """Three pictures, two of them of one name in different folders and of other sizes."""
    folder = tmp_path / "pictures"
    for name, size in (("a.png", (30, 40)), ("sub/b.JPG", (24, 32)), ("sub/b.png", (9, 50))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        values = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(values).save(folder / name, quality=95)
    (folder / "notes.txt").write_text("no picture")
    return folder


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_pictures(images, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["infer", str(images), str(pictures), "--out", str(out), "--save-maps", "--batch", "2"]
    assert main(words) == 0
    assert f"Wrote the predictions of 3 pictures to {out}" in capsys.readouterr().out
    rows = read(out / "predictions.csv")
    assert [row["key"] for row in rows] == ["a.png", "sub/b.JPG", "sub/b.png"]
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    tasks = ("semseg", "depth", "normals")
    assert files == {
        "predictions.csv",
        *(f"images/{s}.{t}.png" for s in ("a", "sub/b", "sub/b_2") for t in tasks),
        *(f"arrays/{s}.npz" for s in ("a", "sub/b", "sub/b_2")),
    }
    assert rows[2]["depth/image"] == "images/sub/b_2.depth.png"
    with Image.open(out / rows[2]["depth/image"]) as drawn:
        assert drawn.size == (50, 9)
    single = Predictor(images).predict(pictures / "sub/b.png")
    with np.load(out / "arrays/sub/b_2.npz") as held:
        assert set(held.files) == set(single)
        for name, values in single.items():
            np.testing.assert_allclose(held[name], values, atol=1e-6)
    assert float(rows[2]["depth/mean"]) == pytest.approx(float(single["depth"].mean()), rel=1e-5)
    assert rows[2]["semseg"] in CLASSES
    assert rows[2]["scene"] in ("day", "night")


def test_single_files_and_chosen_tasks(images, pictures, tmp_path):
    out = tmp_path / "out"
    given = [str(pictures / "a.png"), str(pictures / "sub" / "b.png")]
    options = ["--task", "scene,depth", "--variant", "int8-dynamic", "--threads", "2"]
    assert main(["infer", str(images), *given, "--out", str(out), *options]) == 0
    rows = read(out / "predictions.csv")
    assert [row["key"] for row in rows] == ["a.png", "b.png"]
    heads = ["key", "depth/image", "scene", "scene/probability", "depth/mean", "depth/min"]
    assert list(rows[0])[:6] == heads
    assert not (out / "arrays").exists()


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK"])
def test_modes_of_pictures(images, tmp_path, mode):
    path = tmp_path / "p.tiff"
    Image.fromarray(RNG.integers(0, 256, (20, 20, 3)).astype(np.uint8)).convert(mode).save(path)
    assert main(["infer", str(images), str(path), "--out", str(tmp_path / "out")]) == 0


def test_what_is_wrong_with_pictures_is_said(images, pictures, tmp_path, capsys):
    def error(*words):
        assert main(["infer", str(images), *map(str, words), "--out", str(tmp_path / "o")]) == 2
        return capsys.readouterr().err

    (tmp_path / "empty").mkdir()
    assert "must hold pictures (.jpg" in error(tmp_path / "empty")
    assert "found absent.png, which is not there" in error("absent.png")
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert "this model reads pictures" in error(tmp_path / "t.csv")
    data = (pictures / "a.png").read_bytes()
    (pictures / "cut.png").write_bytes(data[:100])
    assert "cannot read the picture" in error(pictures)
    assert "cut.png" in error(pictures / "cut.png")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(deep)
    assert f"{deep} must have 8 bits a channel, found mode I;16" in error(deep)
    assert "Did you mean depth?" in error(pictures / "a.png", "--task", "dept")
    assert "variant must be a known name" in error(pictures / "a.png", "--variant", "fp8")
    assert not (tmp_path / "o" / "predictions.csv").exists()


def test_tables(tables, tmp_path, capsys):
    path, out = tmp_path / "t.csv", tmp_path / "out"
    path.write_text("city,income,age\nOslo,,45\nBonn,2.0,\n,0,40\n")
    assert main(["infer", str(tables), str(path), "--out", str(out), "--batch", "2"]) == 0
    assert "predictions of 3 rows" in capsys.readouterr().out
    rows = read(out / "predictions.csv")
    assert [row["key"] for row in rows] == ["0", "1", "2"]
    assert list(rows[0]) == [
        "key", "sale", "sale/no", "sale/yes", "tier", "tier/low", "tier/mid", "tier/high", "price",
    ]  # fmt: skip
    found = Predictor(tables).predict(path)
    for i, row in enumerate(rows):
        assert float(row["price"]) == pytest.approx(float(found["price"][i, 0]), rel=1e-5)
        assert row["sale"] == ["no", "yes"][int(found["sale"][i, 0] > 0.5)]
        assert float(row["sale/yes"]) == pytest.approx(float(found["sale"][i, 0]), rel=1e-4)


def test_several_tables_and_arrays(tables, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "a.csv").write_text("city,income,age\nOslo,,45\n")
    (folder / "b.csv").write_text("age,city,income\n45,Oslo,\n1,x,2\n")
    assert infer_tables(Predictor(tables), [folder], tmp_path / "out", save_maps=True) == 3
    rows = read(tmp_path / "out" / "predictions.csv")
    assert [row["key"] for row in rows] == ["a.csv:0", "b.csv:0", "b.csv:1"]
    assert list(rows[0].values())[1:] == list(rows[1].values())[1:]
    with np.load(tmp_path / "out" / "predictions.npz") as held:
        assert held["tier"].shape == (3, 3)


def test_what_is_wrong_with_tables_is_said(tables, tmp_path, capsys):
    def error(text, name="t.csv"):
        (tmp_path / name).write_text(text)
        out = tmp_path / "o"
        assert main(["infer", str(tables), str(tmp_path / name), "--out", str(out)]) == 2
        assert not (out / "predictions.csv").exists()
        return capsys.readouterr().err

    assert "Did you mean incom?" in error("city,incom,age\nx,1,2\n")
    assert "found 'old' in row 1" in error("city,income,age\nx,1,2\nx,1,old\n")
    assert "found inf in row 0" in error("city,income,age\nx,inf,2\n")
    assert "it is empty" in error("")
    assert "this model reads tables" in error("", "t.png")
    assert main(["infer", str(tables), str(tmp_path / "absent"), "--out", "o"]) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must hold tables"):
        infer_tables(Predictor(tables), [tmp_path / "empty"], tmp_path / "o")


def test_trees_and_unknown_tasks(tmp_path):
    folder = trees_folder(tmp_path / "model")
    (tmp_path / "t.csv").write_text("city,income,age\nRome,1,50\n")
    out = tmp_path / "out"
    words = ["infer", str(folder), str(tmp_path / "t.csv"), "--out", str(out)]
    assert main(words) == 0
    assert read(out / "predictions.csv") == [{"key": "0", "north": "6", "east": "7"}]
    assert main([*words, "--task", "unknown"]) == 0
    assert read(out / "predictions.csv") == [{"key": "0", "unknown": "5"}]


def test_names_and_keys(tmp_path):
    assert split_names(None) is None
    assert split_names(["a, b", "c"]) == ["a", "b", "c"]
    (tmp_path / "x.png").write_bytes(b"")
    assert find_pictures([tmp_path, tmp_path / "x.png"]) == [
        ("x.png", tmp_path / "x.png"), ("x.png", tmp_path / "x.png"),
    ]  # fmt: skip
