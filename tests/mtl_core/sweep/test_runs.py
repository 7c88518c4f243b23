"""The command lines of a trial, and what of their files counts."""

import json
from pathlib import Path

import pytest

from mtl_core.sweep import Plan
from mtl_core.sweep.runs import MissingValueError, Run, fit_words, make_trial, objective_values
from mtl_core.trial import Outcome

OUTCOME = Outcome("finished", "", 8.0, 6.0, 300.0)


def plan(objectives, **more) -> Plan:
    return Plan.parse({"space": {"x": [1, 2]}, "objectives": objectives, **more})


def write(folder: Path, scores, **cost) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"validation": i + 1, "epoch": i + 1, "val/a/acc": s} for i, s in enumerate(scores)]
    lines.append({"parameters": 10, **cost})
    (folder / "progress.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "metrics.json").write_text(json.dumps({"val": {"delta_m": 1.5}}))
    return Run.read(folder)


def test_a_trial_has_a_command_and_a_folder_for_each_seed(tmp_path):
    held = plan({"val/a/acc": {"direction": "maximize"}}, seeds=[3, 4], arguments=["--y=1"])
    trial = make_trial("prog", ["-c", "a.yaml", "--y=0"], held, {"x": 2}, tmp_path)
    assert [words[:6] for words in trial.commands] == [
        ("fit", "-c", "a.yaml", "--y=0", "--y=1", f"--seed_everything={seed}") for seed in (3, 4)
    ]
    for words, seed in zip(trial.commands, (3, 4), strict=True):
        assert "--x=2" in words
        assert f"--trainer.default_root_dir={tmp_path / f'seed_{seed}'}" in words
        assert words[: len(fit_words(["-c", "a.yaml", "--y=0"], held, {"x": 2}, seed))] == (
            fit_words(["-c", "a.yaml", "--y=0"], held, {"x": 2}, seed)
        )


def test_macs_are_counted_only_where_wanted(tmp_path):
    score = {"val/a/acc": {"direction": "maximize"}}
    without = make_trial("prog", [], plan(score), {"x": 1}, tmp_path)
    both = plan({**score, "macs": {"direction": "minimize"}})
    assert '"macs"' not in without.shell()
    assert '"macs": true' in make_trial("prog", [], both, {"x": 1}, tmp_path).shell()


def test_last_best_gain_and_costs(tmp_path):
    held = plan(
        {
            "last": {"value": "val/a/acc", "direction": "maximize"},
            "best": {"value": "val/a/acc", "direction": "maximize", "epoch": "best"},
            "worst": {"value": "val/a/acc", "direction": "minimize", "epoch": "best"},
            "val/delta_m": {"direction": "maximize"},
            "macs": {"direction": "minimize"},
            "parameters": {"direction": "minimize"},
            "seconds": {"direction": "minimize"},
            "peak_mib": {"direction": "minimize"},
        }
    )
    run = write(tmp_path, [0.2, 0.9, 0.5], macs=7)
    assert objective_values(held, [run], OUTCOME) == [0.5, 0.9, 0.2, 1.5, 7, 10, 8.0, 300.0]


def test_seeds_are_averaged_and_share_the_time(tmp_path):
    held = plan(
        {
            "acc": {"value": ["val/a/acc"], "direction": "maximize"},
            "cpu_seconds": {"direction": "minimize"},
        }
    )
    runs = [write(tmp_path / "a", [0.2]), write(tmp_path / "b", [0.6])]
    assert objective_values(held, runs, OUTCOME) == pytest.approx([0.4, 3.0])


def test_missing_and_not_finite_values_are_named(tmp_path):
    held = plan({"acc": {"value": ["val/a/acc", "val/b/acc"], "direction": "maximize"}})
    with pytest.raises(MissingValueError, match=r"acc needs a finite val/b/acc; .*: val/a/acc"):
        objective_values(held, [write(tmp_path, [0.2])], OUTCOME)
    with pytest.raises(MissingValueError, match="finite val/a/acc"):
        objective_values(held, [write(tmp_path, [None])], OUTCOME)
    with pytest.raises(MissingValueError, match="none"):
        objective_values(held, [Run.read(tmp_path / "nothing")], OUTCOME)
