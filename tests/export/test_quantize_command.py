"""The verb: what its words mean, and whose data it takes."""

import pytest
from toy_exports import table_run

from export.__main__ import main
from export.manifest import read_manifest
from export.quantize_command import bounds, find_source
from export.source import SourceError
from mtl_core.errors import ArgumentError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return table_run(tmp_path_factory.mktemp("run"))


def test_bounds():
    assert bounds(["0.01"]) == 0.01
    assert bounds(["a=0.02", "b=1e-3"]) == {"a": 0.02, "b": 0.001}
    for words in (["a=x"], ["0.1", "0.2"], ["=0.1", "a=1"]):
        with pytest.raises(ArgumentError, match="--max-drop must be"):
            bounds(words)


def test_the_run_of_a_config_is_the_source(run):
    found = find_source({"model": {"checkpoint_sha256": None}}, None, run / "config.yaml")
    assert found.data is not None
    digest = found.checkpoint_sha256
    assert find_source({"model": {"checkpoint_sha256": digest}}, run, None).tasks == found.tasks


def test_another_network_is_refused(run):
    with pytest.raises(SourceError, match="the manifest says 0000"):
        find_source({"model": {"checkpoint_sha256": "0" * 64}}, run, None)
    with pytest.raises(ArgumentError, match="--source or --config must be given"):
        find_source({"model": {}}, None, None)


def test_the_verb(run, tmp_path, capsys):
    out = tmp_path / "model"
    words = ["--tasks", "click", "--no-metrics"]
    assert main(["build", str(run), "--out", str(out), *words]) == 0
    words = ["--source", str(run), "--calibration", "8", "--max-drop", "click=0.9"]
    assert main(["quantize", str(out), *words]) == 0
    assert "click" in capsys.readouterr().out
    assert [v["id"] for v in read_manifest(out)["variants"]] == ["fp32", "int8-dynamic"]
    assert main(["quantize", str(out), "--mode", "int8-dynamic"]) == 2
    assert "--source or --config" in capsys.readouterr().err
