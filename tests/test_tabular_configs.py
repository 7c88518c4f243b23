"""Every YAML in `configs/tabular` runs fit, test and predict on small tables."""

from pathlib import Path

import pytest
import toy_tables
import yaml

from mtl_tabular.__main__ import main

CONFIGS = Path(__file__).parents[1] / "configs"
FOUND = sorted((CONFIGS / "tabular").glob("*.yaml"))
WHOLE = [p for p in FOUND if "tasks" in yaml.safe_load(p.read_text())]
PARTS = [p for p in FOUND if p not in WHOLE]
BASE = CONFIGS / "tabular" / "multitab.yaml"
SMALL = [
    "--data.train_size=192",
    "--data.val_size=64",
    "--data.test_size=64",
    "--data.batch_size=64",
]
QUICK = ["--trainer.accelerator=cpu", "--trainer.fast_dev_run=true"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Runs write to the working folder; tables lie in its folder ``data``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mtl_tabular"])


def arguments(path: Path, tmp_path: Path) -> list[str]:
    if path.stem == "data_table":
        toy_tables.write_wide_csv(tmp_path / "data" / "table.csv")
    elif path.stem == "data_long":
        toy_tables.write_long_csv(tmp_path / "data" / "long.csv")
    else:
        return ["-c", str(path), *SMALL]
    return ["-c", str(path), "--data.batch_size=32"]


@pytest.mark.parametrize("path", WHOLE, ids=lambda p: p.stem)
def test_config_runs(path, tmp_path):
    words = arguments(path, tmp_path)
    # A fit validates too.
    verbs = ("fit", "validate", "test", "predict") if path == BASE else ("fit", "test", "predict")
    for verb in verbs:
        main([verb, *words, *QUICK])


@pytest.mark.parametrize("path", PARTS, ids=lambda p: p.stem)
def test_network_runs_in_place_of_the_base_configs(path, tmp_path):
    main(["fit", "-c", str(BASE), "-c", str(path), *SMALL, *QUICK])


@pytest.mark.parametrize("name", ["pcgrad", "uw", "graddrop", "mgda_ub"])
def test_balancers_run_on_tables(name):
    main(
        ["fit", "-c", str(BASE), "-c", str(CONFIGS / "balancing" / f"{name}.yaml"), *SMALL, *QUICK]
    )
