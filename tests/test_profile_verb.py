"""``profile`` of both programs, from configs as they are."""

import json
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mtl"])


def test_tables(tmp_path):
    from mtl_tabular.__main__ import main

    base, part = (CONFIGS / "tabular" / name for name in ("multitab.yaml", "mmoe.yaml"))
    words = ["-c", str(base), "-c", str(part), "--batch", "16", "--repeats", "0", "--out", "p.json"]
    sizes = [f"--data.{split}_size=64" for split in ("train", "val", "test")]
    main(["profile", *words, *sizes])
    held = json.loads((tmp_path / "p.json").read_text())
    assert held["network"] == "MMoE"
    assert all(shape[0] == 16 for shape in held["inputs"].values())
    for task in held["tasks"]:
        assert held["single"][task]["foreign"] == []
        assert held["separate"][task]["macs"] == held["single"][task]["macs"]
        assert 0 < held["saving"][task]["all tasks"] < 1


def test_the_published_network_costs_what_was_published(tmp_path, capsys):
    """83.7 G with one head at 512² (Liang et al., NeurIPS 2022, tables with 83 and 84 G)."""
    from mtl_vision.__main__ import main

    path = CONFIGS / "vision" / "m3vit_pascal.yaml"
    words = ["-c", str(path), "--device", "meta", "--no-separate", "--no-dense", "--out", "p.json"]
    main(["profile", *words])
    held = json.loads((tmp_path / "p.json").read_text())
    assert held["inputs"] == {"inputs": [1, 3, 512, 512]}
    assert held["single"]["semseg"]["macs"] == pytest.approx(83.7e9, rel=0.005)
    assert all(held["single"][task]["foreign"] == [] for task in held["tasks"])
    assert held["single"]["semseg"]["seconds"] is None
    assert "semseg alone: 79% less than all tasks" in capsys.readouterr().out
