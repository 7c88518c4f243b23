"""Artefact folders: sealed, read, verified, extended, and never half written."""

import json
import subprocess
import sys

import pytest

from export.manifest import (
    FolderError,
    add_variant,
    check_manifest,
    file_record,
    read_manifest,
    recorded_files,
    rewritten,
    seal,
    staged,
    verify,
)
from mtl_core.errors import ArgumentError, CheckpointWriteError

BARE = {
    "producer": {"name": "mtl-suite", "version": "0", "opset": 20},
    "kind": "table",
    "model": {"class": "Net", "parameters": 3, "checkpoint_sha256": None},
    "inputs": [{"name": "numeric", "dtype": "float32", "shape": ["batch", 2]}],
    "tasks": [
        {
            "name": "sale",
            "kind": "binary",
            "index": 0,
            "dense": False,
            "outputs": [{"name": "sale", "shape": ["batch", 1], "activation": "sigmoid"}],
            "primary": "auroc",
            "higher_is_better": True,
        }
    ],
    "variants": [{"id": "fp32", "precision": "fp32", "graphs": {"sale": "sale.onnx"}}],
    "preprocess": "preprocess.json",
    "labels": "labels.json",
    "golden": {"inputs": "golden/inputs.npz", "outputs": "golden/outputs.npz", "tolerance": 1e-5},
    "created": "2026-01-01",
}


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "model"
    with staged(out) as work:
        (work / "golden").mkdir()
        for name in ("sale.onnx", "weights.bin", "labels.json", "golden/inputs.npz"):
            (work / name).write_text(f"content of {name}")
        seal(work, BARE)
    return out


def test_every_file_is_recorded_once_and_weights_with_their_variant(folder):
    manifest = read_manifest(folder)
    verify(folder)
    paths = [record["path"] for record in recorded_files(manifest)]
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert sorted(paths) == sorted(on_disk - {"manifest.json"})
    own = {record["path"] for record in manifest["variants"][0]["files"]}
    assert own == {"sale.onnx", "weights.bin"}
    assert [p.name for p in folder.parent.iterdir()] == ["model"], "nothing temporary stays"


@pytest.mark.parametrize("name", ["sale.onnx", "weights.bin", "labels.json", "golden/inputs.npz"])
def test_a_flipped_byte_is_caught_and_its_file_named(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[3] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(FolderError, match=f"{name} must have the checksum"):
        verify(folder)


def test_truncated_and_missing_files_are_named(folder):
    (folder / "weights.bin").write_text("short")
    with pytest.raises(FolderError, match=r"weights.bin must have \d+ bytes"):
        verify(folder)
    (folder / "weights.bin").unlink()
    with pytest.raises(FolderError, match=r"weights\.bin must be there"):
        verify(folder)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_other_versions_are_refused_with_what_was_found(folder, version):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["schema_version"] = version
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FolderError, match=f"must be 1, found {version!r}"):
        read_manifest(folder)


def test_folders_without_a_manifest_say_how_to_get_one(tmp_path):
    with pytest.raises(FolderError, match=r"must hold manifest\.json.*export build"):
        read_manifest(tmp_path)
    with pytest.raises(FolderError, match="does not exist"):
        read_manifest(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(FolderError, match="must be JSON"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["../secret", "a/../../b", "/etc/passwd", "c:\\x"])
def test_paths_that_leave_the_folder_break_the_schema(folder, path):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["variants"][0]["graphs"]["sale"] = path
    with pytest.raises(FolderError, match=r"variants\[0\].graphs.sale must match"):
        check_manifest(manifest)
    with pytest.raises(FolderError, match="inside of the artefact folder"):
        file_record(folder, "../other")


def test_a_manifest_that_breaks_the_schema_is_not_written(tmp_path):
    with pytest.raises(FolderError, match="graphs of variant 'fp32' must exist"):
        seal(tmp_path, BARE)
    (tmp_path / "sale.onnx").write_text("x")
    with pytest.raises(FolderError, match=r"kind must be one of"):
        seal(tmp_path, {**BARE, "kind": "sound"})
    assert not (tmp_path / "manifest.json").exists()


def test_a_failed_build_leaves_nothing(tmp_path):
    out = tmp_path / "model"

    def build(error):
        with staged(out) as work:
            (work / "half").write_text("x")
            raise error

    with pytest.raises(ArgumentError):
        build(ArgumentError("x", "work", 1))
    with pytest.raises(CheckpointWriteError):
        build(OSError(28, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_folders_in_use_are_refused_and_empty_ones_taken(tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    with staged(out) as work:
        (work / "x").write_text("x")
    with pytest.raises(ArgumentError, match="out must be a new folder"), staged(out):
        pass
    assert (out / "x").read_text() == "x"


def test_a_variant_is_added_and_replaced(folder, tmp_path):
    graph, weights = tmp_path / "g", tmp_path / "w"
    graph.write_text("graph")
    weights.write_text("weights")
    variant = {"id": "int8", "precision": "int8-dynamic", "graphs": {"sale": "int8/sale.onnx"}}
    before = read_manifest(folder)["variants"][0]
    for _ in range(2):
        add_variant(folder, variant, {"int8/sale.onnx": graph, "int8/weights.bin": weights})
        verify(folder)
        found = read_manifest(folder)["variants"]
        assert [v["id"] for v in found] == ["fp32", "int8"]
        assert found[0] == before
        assert [r["path"] for r in found[1]["files"]] == ["int8/sale.onnx", "int8/weights.bin"]
        graph.write_text("another graph")
    assert (folder / "int8/sale.onnx").read_text() == "another graph"


def test_a_failed_addition_leaves_the_folder_as_it_was(folder):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    variant = {"id": "int8", "precision": "int8", "graphs": {"sale": "int8/sale.onnx"}}
    with pytest.raises(FolderError, match="must exist"):
        add_variant(folder, variant, {})
    with pytest.raises(CheckpointWriteError):
        add_variant(folder, variant, {"int8/sale.onnx": folder / "absent"})

    def spoil():
        with rewritten(folder) as work:
            (work / "sale.onnx").write_text("broken")
            raise KeyError

    with pytest.raises(KeyError):
        spoil()
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_tampered_folder_takes_no_variant(folder):
    (folder / "labels.json").write_text("{}")
    with pytest.raises(FolderError, match=r"labels\.json"):
        add_variant(folder, {"id": "x", "precision": "x", "graphs": {}}, {})


def test_reading_a_folder_imports_nothing_heavy():
    code = "import export.manifest, sys; print({'torch', 'onnx', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
