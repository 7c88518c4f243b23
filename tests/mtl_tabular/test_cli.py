"""What the command line of tables adds: columns and classes, learned once and carried along."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from mtl_core.rebuild import from_checkpoint
from mtl_tabular.__main__ import main
from mtl_tabular.cli import TabularCLI, complete

CONFIG = """
seed_everything: 0
tasks:
  price: {class_path: NumericTarget}
  sold: {class_path: BinaryTarget, init_args: {column: "sold?"}}
model:
  class_path: MultiTaskModule
  init_args:
    network: {class_path: SharedBottom, init_args: {shared: [8], tower: [4]}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-2}}
data: {class_path: TableDataModule, init_args: {table: table.csv, batch_size: 32}}
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  logger: {class_path: CSVLogger, init_args: {save_dir: runs, name: toy}}
"""
# A checkpoint callback of another run has another folder.
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def table(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, 2)), columns=["a", "b"])
    frame["city"] = rng.choice(["Oslo", "Rome", None], rows)
    frame["price"] = 100 + 5 * frame["a"]
    frame["sold?"] = np.where(frame["b"] > 0, "yes", "no")
    return frame


@pytest.fixture(autouse=True)
def bare_shell(monkeypatch):
    monkeypatch.setattr("sys.argv", ["mtl_tabular"])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """One run of ``fit``, in a folder that the tests use as working folder."""
    folder = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mtl_tabular"])
        patch.chdir(folder)
        table().to_csv("table.csv", index=False)
        Path("config.yaml").write_text(CONFIG)
        cli = TabularCLI(["fit", "-c", "config.yaml"])
        run = folder / cli.trainer.log_dir
    return cli, folder, run


@pytest.fixture
def run(fitted, monkeypatch):
    monkeypatch.chdir(fitted[1])
    return fitted[2]


def checkpoint(run: Path) -> str:
    return str(next((run / "checkpoints").glob("*.ckpt")))


def test_saved_config_holds_columns_classes_and_scales(run):
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["tasks"]["sold"]["init_args"]["classes"] == ["no", "yes"]
    assert saved["tasks"]["price"]["init_args"]["mean"] == pytest.approx(100, abs=2)
    schema = saved["model"]["init_args"]["network"]["init_args"]["schema"]
    assert [column["name"] for column in schema["numeric"]] == ["a", "b"]
    assert schema["categorical"] == [{"name": "city", "levels": ["Oslo", "Rome"]}]
    assert saved["data"]["init_args"]["schema"] == schema


def test_only_training_rows_teach(fitted):
    cli, *_ = fitted
    rows = cli.model.tasks["price"].rows
    assert rows == len(cli.datamodule.prepared("train")) < 120


def test_checkpoint_alone_rebuilds_the_network(fitted, run):
    network = from_checkpoint(checkpoint(run))
    inputs = {
        name: torch.as_tensor(array)
        for name, array in network.schema.encode(table().head(5)).items()
    }
    expected = fitted[0].model.network.eval()(inputs)
    for name, prediction in network(inputs).items():
        assert torch.equal(prediction, expected[name])


def test_a_checkpoint_needs_no_training_table(run, tmp_path):
    """Columns and classes come from the checkpoint, whatever the config's table has become."""
    rows = table().drop(columns=["price", "sold?"]).iloc[::-1]
    rows.to_csv("new.csv", index=False)
    words = ["-c", "config.yaml", "--data.table=gone.csv", f"--ckpt_path={checkpoint(run)}"]
    folder = f"--predictions.folder={tmp_path}"
    main(["predict", *words, "--data.predict=new.csv", folder])
    frame = pd.read_csv(tmp_path / "predictions.csv")
    assert frame.columns.tolist() == ["key", "price", "sold", "sold/no", "sold/yes"]
    assert len(frame) == 120
    assert set(frame["sold"]) <= {"no", "yes"}


def test_validating_a_checkpoint_gives_the_scores_of_fit(fitted, run):
    cli = TabularCLI(["validate", "-c", "config.yaml", f"--ckpt_path={checkpoint(run)}"])
    assert cli.taken_from_checkpoint() == []
    for key in ("val/price/rmse", "val/sold/auroc"):
        seen = fitted[0].trainer.callback_metrics[key]
        assert cli.trainer.callback_metrics[key] == pytest.approx(float(seen), rel=1e-5)


def test_baselines_compare_with_the_same_plan(fitted, run, tmp_path):
    """Δm of the next run, from single-task runs on the very same columns and divisions."""
    words = ["-c", "config.yaml", f"--baselines_dir={tmp_path / 'baselines'}"]
    main(["baselines", *words])
    (path,) = (tmp_path / "baselines").glob("*.json")
    recorded = json.loads(path.read_text())
    assert recorded["plan_hash"] == fitted[0].plan_hash()
    assert {r["task"] for r in recorded["runs"]} == {"price", "sold"}
    cli = TabularCLI(["fit", *words, "--trainer.logger.name=again"])
    metrics = json.loads((Path(cli.trainer.log_dir) / "metrics.json").read_text())
    assert "delta_m" in json.dumps(metrics)


def test_long_tables_get_a_task_per_level(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = table().drop(columns="sold?")
    frame["shop id"] = np.arange(len(frame)) % 3
    frame.to_csv("table.csv", index=False)
    config = yaml.safe_load(CONFIG)
    del config["tasks"]["sold"]
    config["data"]["init_args"]["task_column"] = "shop id"
    Path("config.yaml").write_text(yaml.safe_dump(config))
    cli = TabularCLI(["fit", "-c", "config.yaml", "--trainer.fast_dev_run=true"])
    assert list(cli.model.tasks) == ["price_0", "price_1", "price_2"]
    assert {task.level for task in cli.model.tasks.values()} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--data.table=gone.csv"], "gone.csv"),
        (["--tasks.sold.init_args.column=sold!"], "sold?"),
        (["--model.network.class_path=SharedBotom"], "SharedBottom"),
        (["--tasks.sold.class_path=NumericTarget"], "finite numbers"),
    ],
)
def test_mistakes_end_with_a_message(run, words, found, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "-c", "config.yaml", *words])
    assert stopped.value.code == 2
    assert found in capsys.readouterr().err


def test_completing_twice_changes_nothing(run):
    saved = yaml.safe_load((run / "config.yaml").read_text())
    once = complete(saved)
    assert once["tasks"].keys() == saved["tasks"].keys()
    assert complete(once) == once
