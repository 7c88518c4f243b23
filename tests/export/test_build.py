"""`build`: a folder is complete, checked and reproducible, or it is not there."""

import dataclasses
import hashlib
import json
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from toy_exports import SIZE, image_source, small_source, table_source

from export import build as building
from export import card
from export.build import ParityError, build
from export.card import main as report
from export.check import check
from export.manifest import FolderError, read_manifest, recorded_files, verify
from export.parity import runner
from export.runtime import Predictor
from export.settings import BuildSettings
from mtl_core.errors import ArgumentError, UnknownNameError

CHOSEN = ("semseg", "scene")
IMAGES = BuildSettings(size=SIZE, tasks=CHOSEN)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    out = tmp_path_factory.mktemp("images") / "model"
    source = image_source()
    return source, out, build(source, out, IMAGES)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    source = table_source(folder / "run")
    settings = BuildSettings(tasks=("price", "click"), metrics=False)
    return source, folder / "model", build(source, folder / "model", settings)


@pytest.fixture(params=["images", "table"])
def built(request):
    return request.getfixturevalue(request.param)


def test_everything_is_there_and_as_recorded(built):
    _, out, manifest = built
    assert manifest == read_manifest(out)
    verify(out)
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {r["path"] for r in recorded_files(manifest)} | {"manifest.json"}
    assert {"README.md", "preprocess.json", "labels.json", "golden/inputs.npz"} <= found
    assert {"report/parity.json", "report/ops.json", "report/metrics.json"} <= found
    assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []


def test_a_graph_a_task_over_one_file_of_weights(images):
    source, out, manifest = images
    variant = manifest["variants"][0]
    assert variant["graphs"] == {name: f"{name}.onnx" for name in CHOSEN}
    assert (out / "weights.bin").stat().st_size > 50_000
    for name, file in variant["graphs"].items():
        held = onnx.load(out / file, load_external_data=False).graph
        others = {task for task in source.tasks if task != name}
        assert not any(f".decoders.{task}." in t.name for t in held.initializer for task in others)


def test_disk_is_that_of_one_model(images):
    """At most 1.05 times one graph with every task in it, beside the padding to pages."""
    _, out, manifest = images
    graphs = [onnx.load(out / f) for f in manifest["variants"][0]["graphs"].values()]
    tensors = {
        hashlib.sha256(t.raw_data).digest(): len(t.raw_data)
        for graph in graphs
        for t in graph.graph.initializer
    }
    size = sum(record["bytes"] for record in manifest["variants"][0]["files"])
    assert size <= 1.05 * sum(tensors.values()) + 4096 * len(tensors) + 50_000 * len(graphs)


def test_golden_samples_are_what_network_and_graphs_give(built):
    source, out, manifest = built
    inputs = dict(np.load(out / "golden/inputs.npz"))
    outputs = dict(np.load(out / "golden/outputs.npz"))
    assert sorted(outputs) == sorted(task["name"] for task in manifest["tasks"])
    assert 3 <= len(next(iter(inputs.values()))) <= 8
    graphs = {name: out / file for name, file in manifest["variants"][0]["graphs"].items()}
    for name, found in runner(graphs)(inputs).items():
        np.testing.assert_array_equal(found, outputs[name])
    spec = building.input_spec(source, SIZE if manifest["kind"] == "image" else None)
    with torch.no_grad():
        raw = source.network(spec.tensors(inputs))
    for name, expected in outputs.items():
        activated = source.tasks[name].activate(raw[name]).numpy()
        np.testing.assert_allclose(expected, activated, rtol=1e-4, atol=1e-5)


def test_parity_is_reported_by_task_over_several_batches(built):
    _, out, manifest = built
    report = json.loads((out / "report/parity.json").read_text())
    assert report["tasks"].keys() == {task["name"] for task in manifest["tasks"]}
    for found in report["tasks"].values():
        assert found["graph"]["batches"] == [1, 2, 3, 7]
        assert found["graph"]["ok"]
        assert found["full_network"]["ok"], "a task alone is what the full network says"
    assert manifest["drift"] == []


def test_columns_classes_and_units(table):
    _, out, manifest = table
    assert [task["name"] for task in manifest["tasks"]] == ["click", "price"], "network's order"
    assert [task["index"] for task in manifest["tasks"]] == [0, 2]
    assert manifest["inputs"][1]["columns"] == ["city", "member"]
    assert json.loads((out / "report/parity.json").read_text())["samples"] == "validation"
    labels = json.loads((out / "labels.json").read_text())
    assert labels["click"]["classes"] == ["0", "1"]
    assert labels["price"]["unit"] == "target"
    names = [c["name"] for c in json.loads((out / "preprocess.json").read_text())["numeric"]]
    assert names == manifest["inputs"][0]["columns"]
    assert np.isnan(np.load(out / "golden/inputs.npz")["numeric"]).any()


def test_no_file_names_this_machine(built):
    _, out, _ = built
    needles = [str(Path.cwd()), str(Path.home()), str(out.parent), 'File "', socket.gethostname()]
    for path in out.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert not [n for n in needles if len(n) > 3 and n.encode() in data], path


def test_the_card_is_printed(images, capsys):
    _, out, _ = images
    assert report([str(out)]) == 0
    assert "# HardSharing: semseg, scene" in capsys.readouterr().out


def test_two_builds_have_equal_graphs(table, tmp_path):
    source, _, manifest = table
    settings = BuildSettings(tasks=("click",), metrics=False, single_file=False)
    again = build(source, tmp_path / "again", settings)
    hashes = [
        {record["path"]: record["sha256"] for record in made["variants"][0]["files"]}["click.onnx"]
        for made in (manifest, again)
    ]
    assert hashes[0] == hashes[1]


def test_one_graph_of_all_tasks(tmp_path):
    source = small_source()
    manifest = build(source, tmp_path / "m", BuildSettings(layout="all"))
    variant = manifest["variants"][0]
    assert variant["graphs"] == {"*": "model.onnx"}
    assert [record["path"] for record in variant["files"]] == ["model.onnx"], "small: one file"
    assert variant["parity"].keys() == source.tasks.keys()
    held = onnx.load(tmp_path / "m" / "model.onnx")
    assert [value.name for value in held.graph.output] == list(source.tasks)


def test_images_as_bytes(images, tmp_path):
    """The same predictions from less preprocessing, for graphs that are fed by cameras."""
    source, plain, _ = images
    settings = dataclasses.replace(IMAGES, bake_preprocess=True)
    manifest = build(source, tmp_path / "model", settings)
    entry = manifest["inputs"][0]
    assert (entry["dtype"], entry["shape"]) == ("uint8", ["batch", *SIZE, 3])
    assert (entry["layout"], entry["range"]) == ("nhwc", [0, 255])
    outside = json.loads((tmp_path / "model" / "preprocess.json").read_text())["operations"]
    assert [step["op"] for step in outside] == ["decode", "resize"]
    assert not [finding for finding in check(tmp_path / "model") if finding.failure]
    picture = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    found, wanted = (Predictor(path).predict(picture) for path in (tmp_path / "model", plain))
    for name in CHOSEN:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)
    # Calibration, scores and timings hand over floats, whatever the graph takes.
    graphs = {name: tmp_path / "model" / f"{name}.onnx" for name in CHOSEN}
    held = np.random.default_rng(1).integers(0, 256, (2, *SIZE, 3), np.uint8)
    floats = held.transpose(0, 3, 1, 2).astype(np.float32) / 255
    both = runner(graphs)({"image": held}), runner(graphs)({"image": floats})
    for name in CHOSEN:
        np.testing.assert_array_equal(both[0][name], both[1][name])


def test_columns_have_no_pixels(table, tmp_path):
    settings = BuildSettings(tasks=("price",), metrics=False, bake_preprocess=True)
    with pytest.raises(ArgumentError, match="bake_preprocess must be left out for a table"):
        build(table[0], tmp_path / "model", settings)
    assert not (tmp_path / "model").exists()


def test_a_fixed_batch_for_the_fixed_point_path(tmp_path):
    settings = BuildSettings(tasks=("click",), profile="fpga")
    manifest = build(small_source(), tmp_path / "m", settings)
    assert [entry["shape"][0] for entry in manifest["inputs"]] == [1, 1]
    assert manifest["tasks"][0]["outputs"][0]["shape"] == [1, 1]
    assert manifest["variants"][0]["static_batch"] == 1


def test_what_is_refused_leaves_no_folder(images, tmp_path, monkeypatch):
    source, out, _ = images
    with pytest.raises(ArgumentError, match="out must be a new folder"):
        build(source, out, IMAGES)
    with pytest.raises(UnknownNameError, match="Did you mean semseg"):
        build(source, tmp_path / "m", BuildSettings(size=SIZE, tasks=("semsge",)))
    with pytest.raises(ArgumentError, match="at least one task"):
        build(source, tmp_path / "m", BuildSettings(size=SIZE, tasks=()))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_comparison_is_refused_or_recorded(tmp_path, monkeypatch):
    source = small_source()
    exact = building._outputs

    def off(module):
        run = exact(module)
        return lambda batch: {name: value + 1e-3 for name, value in run(batch).items()}

    monkeypatch.setattr(building, "_outputs", off)
    only = {"tasks": ("click",)}
    with pytest.raises(ParityError, match=r"task 'click' differs from its own module by 0.001"):
        build(source, tmp_path / "m", BuildSettings(**only))
    assert list(tmp_path.iterdir()) == []
    manifest = build(source, tmp_path / "m", BuildSettings(**only, allow_drift=True))
    assert len(manifest["drift"]) == 2
    assert "differs" in (tmp_path / "m" / "README.md").read_text()


def test_a_path_that_got_into_a_file_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "model_card", lambda manifest: f"built in {tmp_path}")
    with pytest.raises(FolderError, match=r"README\.md holds"):
        build(small_source(), tmp_path / "m", BuildSettings(tasks=("click",)))
    assert list(tmp_path.iterdir()) == []
