import json
import re
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from toy_cli import Points, Shared, write_config

import mtl_core.balancing
import mtl_core.modules  # noqa: F401  # the short names of configs
from mtl_core.callbacks import RandomState, TaskTable
from mtl_core.checkpoint import AtomicCheckpointIO
from mtl_core.cli import MultiTaskCLI, unknown_names
from mtl_core.errors import ArgumentError
from mtl_core.modules import MultiTaskModule
from mtl_core.tasks import Classification, Regression, Task


@pytest.fixture(autouse=True)
def bare_shell(monkeypatch):
    monkeypatch.setattr("sys.argv", ["mtl"])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """One run of ``fit`` with a balancer, appended to the config's callbacks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mtl"])
        folder = tmp_path_factory.mktemp("fit")
        path = write_config(folder)
        words = ["fit", "-c", str(path), "--trainer.callbacks+=PCGrad"]
        cli = MultiTaskCLI(words)
    return cli, folder, path, Path(cli.trainer.log_dir)


def checkpoint(run: Path) -> Path:
    return next((run / "checkpoints").glob("*.ckpt"))


def test_tasks_are_linked_to_model_and_data_as_plain_data(fitted):
    cli, *_ = fitted
    assert list(cli.model.tasks) == list(cli.datamodule.tasks) == ["largest", "total"]
    assert cli.model.tasks["largest"] == cli.datamodule.tasks["largest"]
    assert isinstance(cli.datamodule, Points)
    assert isinstance(cli.model.network, Shared)


def test_reports_and_balancer_run_and_checkpoints_are_atomic(fitted):
    cli, _, _, run = fitted
    kinds = [type(c).__name__ for c in cli.trainer.callbacks]
    assert {"PCGrad", "TaskTable", "Results", "Curves", "RandomState"} <= set(kinds)
    assert isinstance(cli.trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert {"config.yaml", "metrics.json", "curves.png"} <= {p.name for p in run.iterdir()}
    assert json.loads((run / "metrics.json").read_text())["method"] == "PCGrad"


def test_saved_config_is_complete_and_gives_the_same_run(fitted, tmp_path):
    cli, _, _, run = fitted
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["tasks"]["largest"]["init_args"]["num_classes"] == 3
    assert saved["seed_everything"] == 0
    args = saved["model"]["init_args"]
    assert args["optimizer"]["init_args"]["lr"] == 0.1
    assert args["network"]["init_args"]["decoders"]["largest"]["init_args"]["dropout"] == 0.1
    again = MultiTaskCLI(
        ["fit", "-c", str(run / "config.yaml"), f"--trainer.logger.save_dir={tmp_path}"]
    )
    assert again.plan_hash() == cli.plan_hash()
    for p, q in zip(again.model.parameters(), cli.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_checkpoint_holds_plain_data_and_rebuilds_everything(fitted):
    cli, _, _, run = fitted
    held = torch.load(checkpoint(run), weights_only=True)["hyper_parameters"]
    assert held["tasks"]["total"]["class_path"].endswith("Regression")
    for base in (L.LightningModule, MultiTaskModule):
        model = base.load_from_checkpoint(checkpoint(run), map_location="cpu")
        assert isinstance(model.tasks["largest"], Classification)
        assert isinstance(model.tasks["total"], Regression)
        assert model.network.heads["largest"].dropout.p == 0.1
        for p, q in zip(model.parameters(), cli.model.parameters(), strict=True):
            assert torch.equal(p, q)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_model_arguments_of_a_checkpoint_prevail_and_that_is_said(fitted, caplog):
    *_, run = fitted
    words = ["predict", "-c", str(run / "config.yaml"), "--ckpt_path", str(checkpoint(run))]
    words += ["--predictions.arrays", "none", "--model.optimizer.lr", "0.7"]
    with caplog.at_level("INFO"):
        cli = MultiTaskCLI(words)
    assert cli.section["model.init_args.optimizer.init_args.lr"] == 0.1
    line = "model.init_args.optimizer.init_args.lr = 0.1 (asked for: 0.7)"
    assert cli.taken_from_checkpoint() == [line]
    assert line in caplog.text


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_predict_writes_arrays_and_a_table(fitted, tmp_path):
    *_, run = fitted
    words = ["predict", "-c", str(run / "config.yaml"), "--ckpt_path", str(checkpoint(run))]
    cli = MultiTaskCLI([*words, "--predictions.folder", str(tmp_path)])
    assert cli.taken_from_checkpoint() == [], "nothing differs, nothing is said"
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0] == "key,largest,largest/probability,total"
    assert len(lines) == 17
    held = np.load(tmp_path / "arrays" / "folder" / "row 3.npz")
    raw = cli.model.eval().network(
        torch.tensor(cli.datamodule.dataset("predict")[3]["inputs"])[None]
    )
    expected = raw["largest"].softmax(1).detach().numpy()[0]
    np.testing.assert_allclose(held["largest"], expected, rtol=1e-5)


def test_config_files_compose(tmp_path):
    first = write_config(tmp_path, fast_dev_run=True)
    second = tmp_path / "second.yaml"
    second.write_text("trainer: {gradient_clip_val: 0.5}\ndata: {init_args: {count: 9}}\n")
    words = ["fit", "-c", str(first), "-c", str(second), "--report.table.every_n_epochs", "0"]
    words += ["--trainer.callbacks+=UW", "--model.network.width", "7"]
    words += ["--model.network.decoder", "LinearDecoder"]
    words += ["--model.network.decoder.dropout", "0.3"]
    cli = MultiTaskCLI(words)
    assert cli.trainer.gradient_clip_val == 0.5
    assert cli.datamodule.count == 9
    assert cli.model.network.trunk.out_features == 7
    assert cli.model.network.heads["total"].dropout.p == 0.3
    table = next(c for c in cli.trainer.callbacks if isinstance(c, TaskTable))
    assert table.every_n_epochs == 0
    assert [type(c).__name__ for c in cli.trainer.callbacks].count("UW") == 1
    assert sum(isinstance(c, RandomState) for c in cli.trainer.callbacks) == 1
    assert not (tmp_path / "results.csv").exists(), "fast_dev_run writes nothing"


def test_print_config_needs_no_training(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        MultiTaskCLI(["fit", "-c", str(write_config(tmp_path)), "--print_config"])
    assert end.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["tasks"]["total"]["class_path"] == "mtl_core.tasks.Regression"
    assert shown["report"]["results"]["table"] is None


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["--tasks.more", "Regresion"], "class_path of tasks .*'Regresion'.*mean Regression"),
        (["--trainer.callbacks+=PCGrat"], "class_path of callbacks .*'PCGrat'.*mean PCGrad"),
        (["--model.network", "Shard"], "class_path of network .*'Shard'.*mean Shared"),
        (["--model.network.decoder", "LinerDecoder"], "class_path of decoder .*LinearDecoder"),
        (["--model", "MultiTaskModul"], "class_path of model .*mean MultiTaskModule"),
        (["--data", "Pionts"], "class_path of data .*mean Points"),
    ],
)
def test_unknown_class_is_answered_with_the_nearest(tmp_path, capsys, words, near):
    with pytest.raises(SystemExit) as end:
        MultiTaskCLI(["fit", "-c", str(write_config(tmp_path)), *words])
    assert end.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(near, last), last


def test_unknown_name_of_a_module_is_answered_too():
    message = "Parser key \"tasks\": module 'mtl_core.tasks' has no attribute 'Regresion'"
    assert "Did you mean Regression?" in unknown_names(message, {"tasks": Task})[0]
    assert unknown_names("all is well", {"tasks": Task}) == []


def test_mistake_of_a_constructor_is_raised_as_it_is(tmp_path):
    words = ["fit", "-c", str(write_config(tmp_path))]
    with pytest.raises(ArgumentError, match=r"width must be positive, found -1\.$"):
        MultiTaskCLI([*words, "--model.network.width=-1"])


def test_missing_tasks_block_is_named(tmp_path, capsys):
    path = tmp_path / "broken.yaml"
    content = yaml.safe_load(write_config(tmp_path).read_text())
    del content["tasks"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit):
        MultiTaskCLI(["fit", "-c", str(path)])
    assert "tasks" in capsys.readouterr().err
