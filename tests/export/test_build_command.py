"""The words of ``build`` become settings, and its end is a table."""

from pathlib import Path

import pytest

from export import build as building
from export.build_command import is_boosted, main, parser, settings
from export.settings import BuildSettings
from mtl_core.errors import ArgumentError


def parsed(*words):
    return settings(parser().parse_args(["a.ckpt", "--out", "m", *words]))


def test_defaults_are_those_of_the_settings():
    assert parsed() == BuildSettings()


def test_every_option():
    words = [
        "--tasks",
        "a,b",
        "--layout",
        "all",
        "--profile",
        "portable",
        "--moe",
        "capacity",
        "--capacity-factor",
        "1.5",
        "--keep-experts",
        "4",
        "--opset",
        "17",
        "--static-batch",
        "2",
        "--single-file",
        "--precision",
        "int8-static",
        "--calibration",
        "64",
        "--max-drop",
        "0.01",
        "--config",
        "c.yaml",
        "--size",
        "32",
        "48",
        "--allow-drift",
        "--allow-batch-dependence",
        "--no-metrics",
        "--metric-samples",
        "9",
    ]
    assert parsed(*words) == BuildSettings(
        tasks=("a", "b"),
        layout="all",
        profile="portable",
        moe="capacity",
        capacity_factor=1.5,
        keep_experts=4,
        opset=17,
        static_batch=2,
        single_file=True,
        precision="int8-static",
        calibration=64,
        max_drop=0.01,
        config=Path("c.yaml"),
        size=(32, 48),
        allow_drift=True,
        allow_batch_dependence=True,
        metrics=False,
        metric_samples=9,
    )
    assert parsed("--keep-experts", "window").keep_experts == "window"
    with pytest.raises(ArgumentError, match="'window' or a number"):
        parsed("--keep-experts", "most")


def test_options_of_networks_are_refused_for_boosted_models(tmp_path):
    words = [str(tmp_path / "model.json"), "--out", str(tmp_path / "out")]
    with pytest.raises(ArgumentError, match=r"--moe must be left out for boosted models.*dense"):
        main([*words, "--moe", "dense"])
    with pytest.raises(ArgumentError, match="--precision must be fp32 for boosted models"):
        main([*words, "--precision", "int8-dynamic"])


def test_boosted_models_are_told_apart(tmp_path):
    assert is_boosted(tmp_path / "model.json")
    assert not is_boosted(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    assert is_boosted(tmp_path)


def test_the_table_at_the_end(monkeypatch, capsys):
    def fake(source, out, chosen):
        assert chosen.tasks == ("depth",)
        return {
            "producer": {"opset": 20},
            "tasks": [{"name": "depth", "kind": "depth", "primary": "rmse"}],
            "variants": [
                {
                    "files": [{"bytes": 1_500_000}],
                    "graphs": {"depth": "depth.onnx"},
                    "parity": {"depth": {"max_abs": 2e-6}},
                    "metrics": {"depth": {"rmse": 0.5}},
                }
            ],
            "drift": ["task 'depth' differs"],
        }

    monkeypatch.setattr(building, "build", fake)
    assert main(["a.ckpt", "--out", "m", "--tasks", "depth"]) == 0
    out = capsys.readouterr().out
    assert "1.50 MB" in out
    assert "2.0e-06" in out
    assert "rmse 0.5" in out
    assert "allowed: task 'depth' differs" in out
