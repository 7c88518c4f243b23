"""The file that keeps a trial's outcome."""

import os
from dataclasses import replace

from mtl_core.trial import Outcome, Trial
from mtl_core.trial.record import read_metrics, unfinite

OUTCOME = Outcome("failed", "ValueError: no", 1.5, 1.25, 300.0, {"val": {"tasks": {}}})


def test_what_is_saved_is_loaded(tmp_path):
    trial = Trial("mtl_vision.__main__", (("fit", "-c", "a b.yaml"), ("test",)), tmp_path)
    assert Outcome.load(trial) is None
    OUTCOME.save(trial)
    assert Outcome.load(trial) == OUTCOME
    assert [path.name for path in tmp_path.iterdir()] == ["outcome.json"]


def test_outcome_of_other_commands_is_not_taken(tmp_path):
    trial = Trial("mtl_vision.__main__", (("fit",),), tmp_path)
    OUTCOME.save(trial)
    assert Outcome.load(replace(trial, commands=(("fit", "--x=1"),))) is None
    assert Outcome.load(replace(trial, program="mtl_tabular.__main__")) is None


def test_line_for_the_shell_is_quoted(tmp_path):
    trial = Trial("mtl_vision.__main__", (("fit", "-c", "a b.yaml"), ("test",)), tmp_path)
    assert trial.shell() == "python -m mtl_vision fit -c 'a b.yaml' && python -m mtl_vision test"


def test_newest_metrics_count_and_old_ones_do_not(tmp_path):
    for name, when in (("a", 100), ("b", 300), ("c", 200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(f'{{"name": "{name}"}}')
        os.utime(tmp_path / name / "metrics.json", (when, when))
    assert read_metrics(tmp_path, 150) == {"name": "b"}
    assert read_metrics(tmp_path, 301) == {}


def test_null_scores_are_named():
    scores = {"depth": {"rmse": 1.0, "loss": None}, "seg": {"miou": 0.5}}
    assert unfinite({"val": {"tasks": scores}, "seed": None}) == ["val/depth/loss"]
    assert unfinite({}) == []
