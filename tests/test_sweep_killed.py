"""A sweep of twelve trials on MultiDigits, killed twice, ends as one that nobody disturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from mtl_core.sweep.study import Sweep

ROOT = Path(__file__).parents[1]
COUNT = 12
PLAN = {
    "objectives": {
        "accuracy": {
            "value": ["val/left/accuracy", "val/right/accuracy"],
            "direction": "maximize",
        }
    },
    # Draws of the last trials come from a model of what the first ones reached.
    "sampler": {"name": "tpe", "seed": 0, "n_startup_trials": 5},
    "pruner": {"name": "median", "n_startup_trials": 4},
    "arguments": [
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_checkpointing=false",
        "--data.train_size=64",
        "--data.val_size=64",
        "--data.num_workers=0",
        "--report.sheet.every_n_epochs=100",
    ],
    "space": {
        "model.optimizer.lr": {"low": 1.0e-4, "high": 0.1, "log": True},
        "trainer.callbacks": {
            "choices": {
                "equal": [],
                "UW": {"class_path": "UW", "init_args": {"lr": {"low": 0.01, "high": 0.1}}},
                "PCGrad": {"class_path": "PCGrad"},
            }
        },
    },
}


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    config = ROOT / "configs" / "vision" / "multi_digits.yaml"
    words = ["-c", str(config), "--space", "space.yaml", "-n", str(COUNT), "--out", name]
    line = [sys.executable, "-m", "mtl_vision", "sweep", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.txt").open("a") as out:
        return subprocess.Popen(line, cwd=folder, env=environment, stdout=out, stderr=out)


def ended(folder: Path) -> int:
    if not (folder / "sweep.json").is_file():
        return 0
    return sum(trial.state.is_finished() for trial in Sweep.open(folder).trials())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_twice_and_started_again(tmp_path):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))
    whole = start(tmp_path, "whole")
    left_over = []
    for after in (3, 8):
        broken = start(tmp_path, "broken")
        while ended(tmp_path / "broken") < after:
            assert broken.poll() is None
            time.sleep(0.3)
        time.sleep(0.5)  # amid the next trial
        broken.send_signal(signal.SIGKILL)
        broken.wait()
        states = [trial.state for trial in Sweep.open(tmp_path / "broken").trials()]
        left_over.append(states.count(TrialState.RUNNING))
    assert start(tmp_path, "broken").wait(800) == 0
    assert whole.wait(800) == 0
    assert left_over == [1, 1]
    one, other = (
        [(t.number, t.params, t.state, t.values) for t in Sweep.open(tmp_path / name).trials()]
        for name in ("whole", "broken")
    )
    assert len(one) == COUNT
    assert one == other
    assert sum(state is TrialState.COMPLETE for _, _, state, _ in one) >= COUNT / 2
