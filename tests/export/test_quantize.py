"""A variant of less precision appears with its metrics, or the folder stays as it was."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from toy_exports import table_source

from export import quantize as quantizing
from export.build import build
from export.check import check
from export.manifest import read_manifest, verify
from export.quantize import QuantizationError, loss, quantize, remarks, snr
from export.runtime import Predictor
from export.settings import BuildSettings
from mtl_core.errors import ArgumentError, UnknownNameError

TASKS = ("price", "click")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    source = table_source(folder / "run")
    build(source, folder / "model", BuildSettings(tasks=TASKS, metrics=False))
    return source, folder / "model"


def state(folder):
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("mode", ["int8-dynamic", "int8-static", "fp16"])
def test_variants_have_metrics_and_run(built, mode):
    source, folder = built
    variant = quantize(folder, source, mode=mode, calibration=16, max_drop=0.5, limit=40)
    verify(folder)
    assert variant["id"] in [v["id"] for v in read_manifest(folder)["variants"]]
    for name in TASKS:
        primary = source.tasks[name].primary
        assert np.isfinite(variant["metrics"][name][primary])
        assert abs(variant["drop"][name]) <= 0.5
        assert variant["parity"][name]["snr_db"] > 30
    assert not [f for f in check(folder) if f.failure]
    arrays = dict(np.load(folder / "golden/inputs.npz"))
    assert set(Predictor(folder, mode).run(arrays)) == set(TASKS)
    report = json.loads((folder / f"report/{mode}.json").read_text())
    assert set(report["before"]) == set(report["after"]) == set(TASKS)
    graph = onnx.load(folder / variant["graphs"]["price"])
    types = [node.op_type for node in graph.graph.node]
    wanted = {"int8-dynamic": "MatMulInteger", "int8-static": "QuantizeLinear", "fp16": "Cast"}
    assert wanted[mode] in types
    if mode == "int8-static":
        assert variant["calibration"]["samples"] == 16
        assert variant["calibration"]["split"] == "train"


def test_a_loss_above_the_bound_leaves_the_folder_as_it_was(built, monkeypatch):
    source, folder = built
    before = state(folder)
    scored = []

    def worse(run, source, limit=None, **options):
        scored.append(run)
        auroc = 0.9 if len(scored) == 1 else 0.8
        return {"price": {"explained_variance": 0.5}, "click": {"auroc": auroc}}

    monkeypatch.setattr(quantizing, "evaluate", worse)
    with pytest.raises(QuantizationError, match=r"click auroc 0\.9 → 0\.8"):
        quantize(folder, source, calibration=16, max_drop={"click": 0.05})
    assert state(folder) == before
    # The search took products back, one group after another, as long as any were left to round.
    assert 2 < len(scored) <= 2 + quantizing.GROUPS


def test_the_search_stops_where_the_bound_is_met(built, monkeypatch):
    source, folder = built
    losses = iter([0.0, 0.3, 0.01])

    def better(run, source, limit=None, **options):
        return {"price": {"explained_variance": 0.5}, "click": {"auroc": 0.9 - next(losses)}}

    monkeypatch.setattr(quantizing, "evaluate", better)
    variant = quantize(folder, source, calibration=16, max_drop=0.02)
    assert variant["drop"]["click"] == pytest.approx(0.01)
    assert variant["kept_in_fp32"] == {"click": 1, "price": 0}
    assert variant["rounded"]["click"] >= 1


def test_a_task_without_labels_is_refused(built, monkeypatch):
    source, folder = built
    monkeypatch.setattr(
        quantizing, "evaluate", lambda *a, **o: {"price": {"explained_variance": 1.0}}
    )
    with pytest.raises(ArgumentError, match="task click must have labelled validation samples"):
        quantize(folder, source, calibration=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "int4"}, "Known: fp16, int8-dynamic|mode must be a known name"),
        ({"max_drop": {"clik": 0.1}}, "Did you mean click"),
        ({"max_drop": -1.0}, "max_drop must not be negative"),
        ({"calibration": 0}, "calibration must be at least 1"),
    ],
)
def test_bad_arguments(built, options, message):
    source, folder = built
    with pytest.raises((ArgumentError, UnknownNameError), match=message):
        quantize(folder, source, **options)


def test_losses_of_errors_are_relative():
    manifest = {
        "tasks": [
            {"name": "a", "primary": "rmse", "higher_is_better": False},
            {"name": "b", "primary": "auroc", "higher_is_better": True},
        ]
    }
    before = {"a": {"rmse": 4.0}, "b": {"auroc": 0.9}}
    after = {"a": {"rmse": 5.0}, "b": {"auroc": 0.95}}
    assert loss(manifest, "a", before, after) == 0.25
    assert loss(manifest, "b", before, after) == pytest.approx(-0.05)
    assert np.isnan(loss(manifest, "a", before, {}))


def test_a_slower_variant_is_called_slower():
    noise = {"depth": {"snr_db": 12.0}, "semseg": {"snr_db": 30.0}}
    slow, noisy = remarks("int8-dynamic", {"fp32": 1.0, "int8-dynamic": 1.2}, noise)
    assert "not faster here: 1.20 against 1.00 ms" in slow
    assert "depth" in noisy
    assert not remarks("fp16", {"fp32": 1.0, "fp16": 0.4}, {})
    assert snr(np.ones(3), np.ones(3)) == 200
