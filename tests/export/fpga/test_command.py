import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fpga_toys import TOOLS

from export.__main__ import main
from export.fpga import csim, generate
from export.fpga.command import for_build, parse_format
from export.manifest import digest, read_manifest, recorded_files, seal, staged, verify
from mtl_core.errors import ArgumentError
from mtl_core.hub import WEIGHTS, save_pretrained
from mtl_tabular.data.schema import TableSchema
from mtl_tabular.networks import SharedBottom
from mtl_tabular.tasks import NumericTarget
from mtl_vision.decoders import PUPDecoder
from mtl_vision.encoders import MoEViT
from mtl_vision.networks import M3ViT
from mtl_vision.tasks import DepthEstimation, SurfaceNormals

SHAPE = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
SMALL = ["--macs", "32", "--calibration", "2"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    torch.manual_seed(0)
    tasks = {"depth": DepthEstimation(), "normals": SurfaceNormals()}
    encoder = partial(
        MoEViT,
        name="vit_tiny_patch16_224",
        img_size=(32, 32),
        model_args=dict(SHAPE),
        num_experts=4,
        top_k=2,
        experts="random",
    )
    folder = tmp_path_factory.mktemp("hub") / "net"
    save_pretrained(M3ViT(tasks, encoder=encoder, decoder=partial(PUPDecoder, width=8)), folder)
    return folder


@pytest.fixture
def exported(hub, tmp_path):
    """A folder as ``build`` leaves it, as far as this verb looks at it."""
    out = tmp_path / "model"
    task = {
        "name": "depth",
        "kind": "depth",
        "index": 0,
        "dense": True,
        "outputs": [{"name": "depth", "shape": ["batch", 1, 32, 32], "activation": "none"}],
        "primary": "rmse",
        "higher_is_better": False,
    }
    manifest = {
        "producer": {"name": "mtl-suite", "version": "0", "opset": 20},
        "kind": "image",
        "model": {"class": "M3ViT", "parameters": 3, "checkpoint_sha256": digest(hub / WEIGHTS)},
        "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, 32, 32]}],
        "tasks": [task],
        "variants": [{"id": "fp32", "precision": "fp32", "graphs": {"depth": "depth.onnx"}}],
        "preprocess": "preprocess.json",
        "labels": "labels.json",
        "golden": {"inputs": "golden/inputs.npz", "outputs": "golden/o.npz", "tolerance": 1e-5},
        "created": "2026-01-01",
    }
    with staged(out) as work:
        (work / "golden").mkdir()
        (work / "depth.onnx").write_text("graph")
        picture = np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32)
        np.savez(work / "golden/inputs.npz", image=picture)
        seal(work, manifest)
    return out


def test_an_exported_folder_gets_its_design_and_stays_sealed(exported, hub, capsys):
    assert for_build(hub, exported, [*SMALL, "--task", "normals"]) == 0
    text = capsys.readouterr().out
    assert "lower bound for the stated device" in text
    assert "noise" not in text  # golden samples were at hand
    verify(exported)
    paths = {record["path"] for record in recorded_files(read_manifest(exported))}
    assert {"fpga/weights/weights.bin", "fpga/hls/tb.cpp", "fpga/estimate.md"} <= paths
    content = json.loads((exported / "fpga/weights/map.json").read_text())
    names = {entry["name"] for entry in content["tensors"]}
    assert "blocks.1.gates.normals.weight" in names
    assert "blocks.1.gates.depth.weight" not in names
    assert main(["fpga", str(exported), "--checkpoint", str(hub), *SMALL]) == 0  # anew
    verify(exported)


def test_build_reaches_the_design_by_its_target(hub, exported, monkeypatch, tmp_path, capsys):
    def built(source, out, chosen):
        assert (source, chosen.tasks) == (hub, ("depth",))
        shutil.copytree(exported, out)
        return read_manifest(out)

    monkeypatch.setattr("export.build.build", built)
    out = tmp_path / "new"
    words = ["build", str(hub), "--out", str(out), "--tasks", "depth", "--target", "fpga"]
    assert main(words) == 0
    assert "lower bound for the stated device" in capsys.readouterr().out
    verify(out)
    (tmp_path / "model.json").write_text("{}")
    words = ["build", str(tmp_path / "model.json"), "--out", str(tmp_path / "x")]
    assert main([*words, "--target", "fpga"]) == 2
    assert "--target must be onnx" in capsys.readouterr().err


@pytest.mark.skipif(not TOOLS, reason="no g++, or no ap_fixed headers (hls4ml)")
def test_a_checkpoint_is_simulated_bit_by_bit(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXXFLAGS", "-O0")
    built = []

    def build(folder, binary):
        """Compile once; both runs have the same geometry."""
        if built:
            shutil.copy(built[0], binary)
            return ""
        warnings = original(folder, binary)
        built.append(shutil.copy(binary, tmp_path / "tb"))
        return warnings

    original = csim.build
    monkeypatch.setattr(csim, "build", build)
    words = ["fpga", str(hub), "--csim", "--task", "depth", *SMALL, "--device", "kv260"]
    words += ["--format", "24,auto/16,auto", "--out"]
    assert main([*words, str(tmp_path / "d")]) == 0
    text = capsys.readouterr().out
    assert "100.00% bit-exact" in text
    assert "Ranges were observed on noise" in text
    content = json.loads((tmp_path / "d/csim.json").read_text())
    entry = content["tasks"]["depth"]
    assert entry["bit_exact"] == entry["routing_kept"] == 1.0
    assert entry["sqnr_db"] > content["bound_db"] == 55
    assert content["passed"]
    assert content["warnings"] == []
    assert not list((tmp_path / "d").rglob("tb"))

    monkeypatch.setitem(generate.BOUNDS, (24, 16), 500.0)
    assert main([*words, str(tmp_path / "e")]) == 1
    assert "less than 500" in capsys.readouterr().out
    assert not json.loads((tmp_path / "e/csim.json").read_text())["passed"]


def test_mistakes_are_named(hub, exported, tmp_path, capsys):
    out = ["--out", str(tmp_path / "d")]
    table = tmp_path / "table"
    schema = TableSchema.fit(pd.DataFrame({"x": [1.0, 2.0, 4.0]}))
    save_pretrained(SharedBottom({"price": NumericTarget()}, schema=schema, token_width=0), table)
    for words, part in (
        ([str(hub)], "--out must name a new folder"),
        ([str(exported)], "--checkpoint must name what the folder was built from"),
        ([str(hub), *out, "--task", "detph"], "depth"),
        ([str(hub), *out, "--device", "zcu105"], "zcu104"),
        ([str(hub), *out, "--format", "18/12"], "--format must be written W,I/W,I"),
        ([str(hub), *out, "--macs", "100"], "power of two"),
        ([str(table), *out], "networks on images"),
        ([str(exported), "--checkpoint", str(table)], "another checksum"),
    ):
        assert main(["fpga", *words]) == 2
        assert part in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_formats_are_parsed():
    widths = parse_format("24,8/16,auto")
    assert (widths.activations, widths.activation_integer) == (24, 8)
    assert (widths.weights, widths.weight_integer) == (16, None)
    for text in ("18,auto", "auto,auto/12,auto", "18,x/12,auto", "18,1,1/12,auto"):
        with pytest.raises(ArgumentError, match="--format"):
            parse_format(text)
