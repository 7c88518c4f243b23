"""The YAML blocks of docs/balancing.md train, on top of a toy config."""

import re
from pathlib import Path

import pytest
import yaml
from toy_cli import config

import mtl_core.modules  # noqa: F401  # the short names of configs
from mtl_core.cli import MultiTaskCLI

TEXT = (Path(__file__).parents[1] / "docs" / "balancing.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_trains(number, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mtl"])
    plain = config(tmp_path, fast_dev_run=2)
    plain["model"]["init_args"]["network"] = {"class_path": "Shared"}
    block = yaml.safe_load(BLOCKS[number])
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    (tmp_path / "b.yaml").write_text(BLOCKS[number])
    cli = MultiTaskCLI(["fit", "-c", str(tmp_path / "a.yaml"), "-c", str(tmp_path / "b.yaml")])
    wanted = [c["class_path"] for c in block["trainer"]["callbacks"]]
    found = [type(c).__name__ for c in cli.trainer.callbacks]
    assert [name for name in found if name in wanted] == wanted
    assert cli.trainer.global_step == 2


def test_there_are_blocks():
    assert len(BLOCKS) >= 7
