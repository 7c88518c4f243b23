import csv
import json

import pytest
import torch
import yaml
from toy_cli import config, write_config

import mtl_core.modules  # noqa: F401  # the short names of configs
from mtl_core.cli import MultiTaskCLI
from mtl_core.errors import ArgumentError
from mtl_core.profile.command import ProfileCLI, bare, example_inputs, main, separate_networks


@pytest.fixture(autouse=True)
def plain_words(monkeypatch):
    monkeypatch.setattr("sys.argv", ["mtl"])


def run(*words):
    main("mtl", MultiTaskCLI, words)


def test_a_config_is_profiled_without_running_it(tmp_path, capsys):
    path = write_config(tmp_path, max_epochs=1)
    run("-c", str(path), "--repeats", "1", "--batch", "3", "--out", str(tmp_path / "p.json"))
    shown = capsys.readouterr().out
    assert "largest alone" in shown
    assert "separate networks" in shown
    held = json.loads((tmp_path / "p.json").read_text())
    assert held["batch"] == 3
    width = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]["init_args"].get(
        "width", 4
    )
    assert held["single"]["largest"]["macs"] == 3 * width + width * 3
    assert held["separate"]["total"]["macs"] == held["single"]["total"]["macs"]
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "p.json"}, "nothing else is written"


def test_saved_configs_and_checkpoints_of_runs(tmp_path, capsys):
    path = write_config(tmp_path, max_epochs=1)
    cli = MultiTaskCLI(["fit", "-c", str(path)])
    saved = next(tmp_path.rglob("config.yaml"))
    run("-c", str(saved), "--repeats", "0", "--no-separate", "--out", str(tmp_path / "a.csv"))
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    words = ["--repeats", "0", "--no-separate", "--out", str(tmp_path / "b.csv")]
    run("--ckpt_path", str(checkpoint), "-c", str(saved), *words)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["call"] for row in rows] == ["largest", "total", "one call", "a call a task"]
    assert cli.model.network.training is not None
    with pytest.raises(SystemExit, match="2"):
        run("--ckpt_path", str(checkpoint))
    assert "--size" in capsys.readouterr().err


def test_other_configs_to_compare_with(tmp_path, capsys):
    path = write_config(tmp_path, max_epochs=1)
    wide = yaml.safe_load(path.read_text())
    wide["model"]["init_args"]["network"].setdefault("init_args", {})["width"] = 64
    (tmp_path / "wide.yaml").write_text(yaml.safe_dump(wide))
    other = str(tmp_path / "wide.yaml")
    run("-c", str(path), "--against", other, "--repeats", "0", "--only", "total", "--no-separate")
    shown = capsys.readouterr().out
    assert "less than wide" in shown
    assert "largest alone" not in shown


def test_mistakes_end_with_their_message(tmp_path, capsys):
    path = str(write_config(tmp_path, max_epochs=1))
    for words, message in (
        (["-c", path, "--batch", "0"], "--batch"),
        (["-c", path, "--out", "x.txt"], "--out"),
        ([], "-c"),
        (["-c", path, "--only", "totl"], "total"),
        (["-c", path, "--size", "4"], "--size"),
    ):
        with pytest.raises(SystemExit, match="2"):
            run(*words)
        assert message in capsys.readouterr().err


def test_nothing_is_downloaded_or_loaded():
    given = {"network": {"pretrained": True, "parts": [{"start_from": "x"}]}, "compile": "inductor"}
    assert bare(given) == {
        "network": {"pretrained": False, "parts": [{"start_from": None}]},
        "compile": "",
    }


def test_separate_networks_know_one_task(tmp_path):
    cli = type("C", (ProfileCLI, MultiTaskCLI), {})(["-c", str(write_config(tmp_path))])
    found = separate_networks(cli.model.network)
    assert {name: list(n.tasks) for name, n in found.items()} == {
        "largest": ["largest"],
        "total": ["total"],
    }
    assert config  # the config names decoders by task, of which each network keeps its own


class Sized:
    size = (4, 6)


def test_inputs():
    class Bare:
        def arguments(self):
            return {"encoder": {"init_args": {"img_size": [8, 10]}}}

    assert example_inputs(Bare(), None, 2).shape == (2, 3, 8, 10)
    assert example_inputs(Bare(), Sized(), 2).shape == (2, 3, 4, 6)
    assert example_inputs(Bare(), Sized(), 1, [5, 7]).shape == (1, 3, 5, 7)
    assert example_inputs(Bare(), None, 1, [1, 5, 7]).shape == (1, 1, 5, 7)
    with pytest.raises(ArgumentError, match="size"):
        example_inputs(Bare(), None, 1, [0, 4])
    assert torch.is_tensor(example_inputs(Bare(), None, 1))
