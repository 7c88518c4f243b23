import csv
import json
from pathlib import Path

import pytest
import yaml
from toy_cli import config, write_config

import mtl_core.balancing
import mtl_core.modules  # noqa: F401  # the short names of configs
from mtl_core.cli import MultiTaskCLI
from mtl_core.single_task import main, single_task_config


def test_one_task_stays_and_balancers_leave():
    whole = config(Path("x"))
    whole["report"] = {"results": {"table": None}}
    whole["trainer"]["callbacks"] = [
        {"class_path": "mtl_core.balancing.PCGrad"},
        {"class_path": "lightning.pytorch.callbacks.Timer"},
        {
            "class_path": "lightning.pytorch.callbacks.EarlyStopping",
            "init_args": {"monitor": "val/total/rmse"},
        },
    ]
    single = single_task_config(whole, "largest", Path("runs/one"))
    assert list(single["tasks"]) == ["largest"]
    assert [c["class_path"].rsplit(".")[-1] for c in single["trainer"]["callbacks"]] == ["Timer"]
    assert single["trainer"]["max_epochs"] == whole["trainer"]["max_epochs"]
    assert list(single["model"]["init_args"]["network"]["init_args"]["decoders"]) == ["largest"]
    other = single_task_config(whole, "total", Path("runs/one"))
    assert other["model"]["init_args"]["network"]["init_args"]["decoders"] == {}
    assert len(other["trainer"]["callbacks"]) == 2


def test_recorded_runs_give_later_runs_their_gain(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mtl"])
    path = write_config(tmp_path, max_epochs=1)
    main(args=["baselines", "-c", str(path), "--trainer.callbacks+=PCGrad"])
    (file,) = (tmp_path / "baselines").glob("*.json")
    runs = json.loads(file.read_text())["runs"]
    assert [run["task"] for run in runs] == ["largest", "total"]

    capsys.readouterr()
    cli = MultiTaskCLI(["fit", "-c", str(path)])
    assert cli.plan_hash() == file.stem
    held = json.loads((Path(cli.trainer.log_dir) / "metrics.json").read_text())
    expected = sum(held["val"]["gain"].values()) / 2
    assert held["val"]["delta_m"] == pytest.approx(expected)
    assert f"Δm = {expected:+.2f} %" in capsys.readouterr().out

    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} == {"single", "Equal"}
    assert float(rows[-1]["value"]) == pytest.approx(expected)
    assert rows[-1]["metric"] == "delta_m"
    saved = yaml.safe_load((Path(cli.trainer.log_dir) / "config.yaml").read_text())
    assert saved["references"] is None, "a copy of the config looks for its own references"


def test_mistakes_end_with_their_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mtl"])
    path = write_config(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(args=["fit", "-c", str(path), "--references", str(tmp_path / "none.yaml")])
    assert end.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ArgumentError: references must name a file")
