import pytest
import yaml

from mtl_core.compare import Comparison
from mtl_core.compare.single import printed_config, write_single_configs
from mtl_core.errors import ArgumentError


def test_each_task_gets_a_config_of_its_own(plan_file, runner, tmp_path):
    comparison = Comparison.load(plan_file())
    paths = write_single_configs(comparison, runner, tmp_path / "single")
    assert list(paths) == ["left", "right"]
    config = yaml.safe_load(paths["right"].read_text())
    assert list(config["tasks"]) == ["right"]
    assert config["model"]["init_args"]["decoders"] == {"right": 2}
    assert config["trainer"]["callbacks"] == []
    before = paths["left"].stat().st_mtime_ns
    write_single_configs(comparison, runner, tmp_path / "single")
    assert paths["left"].stat().st_mtime_ns == before


def test_a_task_that_the_config_lacks(plan_file, runner, tmp_path):
    plan = {"tasks": {"depth": "error"}, "margins": {"error": 0.1}}
    with pytest.raises(ArgumentError, match="name tasks of the config"):
        write_single_configs(Comparison.load(plan_file(**plan)), runner, tmp_path / "single")


def test_a_config_that_does_not_parse(plan_file, runner, tmp_path):
    comparison = Comparison.load(plan_file(run={"program": "no_such_program"}))
    with pytest.raises(ArgumentError, match="No module named"):
        write_single_configs(comparison, runner, tmp_path / "single")


def test_the_config_is_found_below_what_else_was_printed():
    text = (
        "seed_everything: a: warning\n# lightning.pytorch==2.6\nseed_everything: 0\ntasks: {a: 1}"
    )
    assert printed_config(text) == {"seed_everything": 0, "tasks": {"a": 1}}
    with pytest.raises(ArgumentError, match="print_config"):
        printed_config("nothing of the kind")
