"""What `inspect` shows."""

import json

import pytest
from toy_folder import image_folder

from export.__main__ import main
from export.inspection import (
    described,
    experts,
    headline,
    number,
    shape,
    size_text,
    task_rows,
    variant_rows,
)
from export.manifest import read_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("images") / "model")


def test_tasks_variants_and_files_are_shown(folder, capsys):
    assert main(["inspect", str(folder), "--files"]) == 0
    printed = capsys.readouterr().out
    for word in ("toys.Network", "semseg", "int8-dynamic", "score ↑", "depth.onnx", "1.0e-07"):
        assert word in printed
    assert "Latency" not in printed


def test_drift_and_latency_are_shown(folder, tmp_path, capsys):
    manifest = read_manifest(folder)
    manifest |= {"drift": ["depth is off"], "latency": [{"variant": "fp32", "cpu_ms_min": 1.25}]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "allowed although it failed: depth is off" in printed
    assert "cpu_ms_min" in printed


def test_rows(folder):
    manifest = read_manifest(folder)
    assert headline(manifest)[0] == "toys.Network, 12 parameters"
    assert len(task_rows(manifest)) == 4
    rows = variant_rows(manifest)
    assert len(rows) == 2 * (1 + 4)
    assert rows[1][1:5] == ("semseg", rows[1][2], "1.0e-07", "0.5")
    layers = [{"form": "nonzero", "experts": [0, 3], "of": 8}] * 2
    assert experts({"moe": {"depth": layers}}) == "nonzero, 2 of 8"
    assert experts({"moe": None}) == ""
    assert described({"columns": list("abcdefgh")}) == "a, b, c, d, e, f, ..."
    assert described({"colours": "rgb", "range": [0.0, 1.0]}) == "rgb, 0 to 1"
    assert (shape(["batch", 3]), number(None), number(0.5)) == ("(batch, 3)", "–", "0.5")
    assert [size_text(n) for n in (1, 99_999, 23_390_000)] == ["0.0 kB", "100.0 kB", "23.39 MB"]
