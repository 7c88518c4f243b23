"""Every plan in `configs/compare` can be run, and a small one is run to its report."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from mtl_core.__main__ import main
from mtl_core.compare import Comparison, jobs_of
from mtl_core.compare.jobs import profile_trial, trials_of
from mtl_core.compare.record import macs_row
from mtl_core.compare.single import printed_config
from mtl_core.stats.history import History
from mtl_core.stats.table import Table
from mtl_core.trial import Runner

ROOT = Path(__file__).parents[1]
PLANS = sorted((ROOT / "configs" / "compare").glob("*.yaml"))


def main_of(program):
    return import_module(program).main


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as made:
        yield made


def test_every_method_of_the_digits_is_the_balancer_that_it_is_called(monkeypatch):
    """What the parts do is tested with them; here that each is in its place."""
    monkeypatch.chdir(ROOT)
    comparison = Comparison.load(ROOT / "configs" / "compare" / "digits_balancers.yaml")
    for name, words in comparison.methods.items():
        parts = [yaml.safe_load(Path(word).read_text()) for word in words if word != "-c"]
        found = [c["class_path"] for part in parts for c in part["trainer"]["callbacks+"]]
        assert found == ([] if name == comparison.plan.baseline else [name])


@pytest.mark.slow
@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_the_command_lines_of_a_plan_parse(path, tmp_path, monkeypatch, capsys):
    """Of every network once; what each method changes is what the config then says."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["mtl_vision"])
    comparison = Comparison.load(path)
    plan, whole = comparison.plan, path.stem == "rooms_networks"
    methods = plan.methods if whole else (plan.methods[0], plan.methods[-1])
    for job in jobs_of(plan)[0]:
        if job.method not in methods:
            continue
        words = trials_of(comparison, job, tmp_path)["fit"].commands[0]
        with pytest.raises(SystemExit, match="0"):
            main_of(comparison.program)([*words, "--print_config"])
        config = printed_config(capsys.readouterr().out)
        assert config["seed_everything"] == config["data"]["init_args"]["seed"] == job.seed
        assert set(plan.metrics) == set(config["tasks"])
        asked = dict(word.split("=", 1) for word in words if "=" in word)
        if network := asked.get("--model.init_args.network"):
            found = config["model"]["init_args"]["network"]
            held = json.loads(network)
            assert found["class_path"].rpartition(".")[2] == held["class_path"]
            assert held["init_args"].keys() <= found["init_args"].keys()


@pytest.mark.slow
def test_costs_of_a_method_are_counted(runner, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    comparison = Comparison.load(ROOT / "configs" / "compare" / "digits_balancers.yaml")
    outcome = runner.run(profile_trial(comparison, "UW", tmp_path / "profile"))
    assert outcome.status == "finished", outcome.reason
    profile = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert macs_row("UW", comparison.plan, profile).value > 1e5


SMALL = [
    "--trainer.callbacks=[]",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--data.train_size=64",
    "--data.batch_size=16",
    "--data.val_size=32",
    "--data.test_size=32",
    "--data.num_workers=0",
]


@pytest.mark.slow
def test_two_methods_by_two_seeds_from_plan_to_report(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = {
        "name": "tiny",
        "tasks": {"left": "accuracy", "right": "accuracy"},
        "margins": {"accuracy": 0.01},
        "seeds": 2,
        "baseline": "equal",
        "methods": {
            "equal": None,
            "UW": {"configs": ["configs/balancing/uw.yaml"]},
        },
        "run": {
            "program": "mtl_vision",
            "words": ["-c", "configs/vision/multi_digits.yaml", *SMALL],
            "seed_keys": ["data.seed"],
            "profile": False,
        },
    }
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(plan))
    main(["compare", "-c", str(path), "--out", str(out), "--threads", "1"])
    table = Table.read(out / "results.csv")
    for method in ("equal", "UW"):
        assert set(table.by_seed(method, "left", "accuracy", "test")) == {0, 1}
        assert min(table.by_seed(method, "all", "cost/step_ms", "test").values()) > 0
    # Same seed, same weights and order of data: after four steps still close, but not the same.
    left = [table.by_seed(m, "left", "loss", "test") for m in ("equal", "UW")]
    assert all(0 < abs(left[0][seed] - left[1][seed]) < 0.1 for seed in (0, 1))
    assert History.of(out / "results.csv").failures == []
    report = (out / "report" / "report.md").read_text()
    assert "Training randomness not measured: 2 seeds" in report
    assert "CPU seconds a run" in report
