"""A tampered folder is caught, whatever the file; a folder runs where nothing else is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_folder import image_folder, image_graph, table_folder, table_graph, trees_folder

from export.__main__ import main
from export.check import check, unlisted
from export.manifest import FolderError, seal

ROOT = Path(__file__).parents[2]

BLOCKED = (
    "torch", "lightning", "pandas", "onnx", "onnxscript", "scipy", "timm", "matplotlib", "sklearn",
    "xgboost", "cv2", "albumentations", "mtl_vision", "mtl_tabular", "jsonargparse", "rich",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def reseal(folder, change=lambda manifest: None):
    """Record the files as they are now, as someone who knows the format could."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest.pop("files")
    seal(folder, manifest)


def test_a_whole_folder_passes(whole, tmp_path, capsys):
    assert main(["check", str(whole)]) == 0
    printed = capsys.readouterr().out
    assert "All files and 8 graphs are as they were written." in printed
    exact = [f for f in check(whole) if f.bound is not None]
    assert len(exact) == 4
    assert all(f.max_rel <= 1e-5 and not f.failure for f in exact)
    others = [f for f in check(whole) if f.bound is None]
    assert {f.variant for f in others} == {"int8-dynamic"}
    assert max(f.max_abs for f in others) > 1e-4
    assert min(f.snr for f in others) > 40
    assert main(["check", str(table_folder(tmp_path / "table"))]) == 0
    assert main(["check", str(trees_folder(tmp_path / "trees"))]) == 0


@pytest.mark.parametrize("name", [
    "depth.onnx", "int8-dynamic/depth.onnx", "preprocess.json", "labels.json", "golden/inputs.npz",
    "golden/outputs.npz", "README.md",
])  # fmt: skip
def test_a_flipped_byte_fails_and_is_named(folder, name, capsys):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert main(["check", str(folder)]) == 1
    assert f"{name} must have the checksum" in capsys.readouterr().err


def test_a_graph_that_computes_something_else_fails(folder, capsys):
    image_graph(folder / "depth.onnx", "depth", scale=1.01)
    reseal(folder)
    assert main(["check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "off by" in out
    (failed,) = [f for f in check(folder) if f.failure]
    assert (failed.variant, failed.task) == ("fp32", "depth")


def test_inexact_variants_fail_only_where_they_are_no_numbers(folder):
    image_graph(folder / "int8-dynamic/depth.onnx", "depth", scale=3.0)
    reseal(folder)
    assert not [f for f in check(folder) if f.failure]
    image_graph(folder / "int8-dynamic/depth.onnx", "depth", scale=float("nan"))
    reseal(folder)
    (failed,) = [f for f in check(folder) if f.failure]
    assert failed.failure == "not finite"


def test_graphs_of_other_inputs_outputs_or_a_fixed_batch_fail(folder):
    table_graph(folder / "depth.onnx", "price")
    reseal(folder)
    with pytest.raises(FolderError):
        check(folder)
    image_graph(folder / "depth.onnx", "depth")

    def rename(manifest):
        manifest["tasks"][0]["outputs"][0]["shape"] = ["batch", 9, 24, 32]

    reseal(folder, rename)
    with pytest.raises(FolderError, match=r"semseg.onnx must give what manifest.json says"):
        check(folder)


def test_a_graph_that_was_traced_with_a_fixed_batch_fails(folder):
    image_graph(folder / "depth.onnx", "depth", batch=4)
    reseal(folder)
    with pytest.raises(FolderError, match=r"output 'depth' of depth.onnx must have a free batch"):
        check(folder)


def test_golden_outputs_must_have_every_task(folder):
    with np.load(folder / "golden/outputs.npz") as held:
        kept = {name: held[name] for name in held.files if name != "depth"}
    np.savez(folder / "golden/outputs.npz", **kept)
    reseal(folder)
    with pytest.raises(FolderError, match="golden outputs must hold task 'depth'"):
        check(folder)
    (folder / "golden/outputs.npz").write_bytes(b"no archive")
    reseal(folder)
    with pytest.raises(FolderError, match=r"outputs.npz must hold arrays"):
        check(folder)


def test_other_versions_and_no_folder(folder, tmp_path, capsys):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 0}))
    assert main(["check", str(folder)]) == 1
    assert "schema_version" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "absent")]) == 1


def test_files_that_nobody_listed_are_mentioned(folder, capsys):
    (folder / "note.txt").write_text("mine")
    assert unlisted(folder) == ["note.txt"]
    assert main(["check", str(folder)]) == 0
    assert "note.txt is not in manifest.json" in capsys.readouterr().out


def run_bare(words, place):
    """Run a verb where importing anything but ONNX Runtime, numpy and Pillow raises."""
    names = ", ".join(map(repr, BLOCKED))
    code = (
        "import importlib.abc, sys\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in ({names},):\n"
        "            raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from export.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        cwd=place, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_everything_runs_without_torch(whole, tmp_path):
    blocked = run_bare(["build", "x.ckpt", "--out", "y"], tmp_path)
    assert blocked.returncode, "the guard itself works"
    assert "blocked: " in blocked.stderr
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "p.png")
    done = run_bare(["infer", whole, "p.png", "--out", "out"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/images/p.semseg.png").is_file()
    done = run_bare(["check", whole], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "All files and 8 graphs" in done.stdout
    done = run_bare(["inspect", whole], tmp_path)
    assert done.returncode == 0, done.stderr
    table = table_folder(tmp_path / "table")
    (tmp_path / "t.csv").write_text("age,income,city\n40,1,Rome\n")
    done = run_bare(["infer", table, "t.csv", "--out", "rows"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rows/predictions.csv").read_text().startswith("key,sale,")
