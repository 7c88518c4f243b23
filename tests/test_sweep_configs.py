"""Every space in `configs/sweep` gives trials that run; a winner's config gives its scores."""

from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from mtl_core.sweep import Plan
from mtl_core.sweep.best import write_config
from mtl_core.sweep.runs import Run
from mtl_core.sweep.study import Definition, Sweep
from mtl_core.sweep.worker import Worker
from mtl_core.trial import Runner, Trial

ROOT = Path(__file__).parents[1]
SPACES = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))
TINY = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.num_workers=0"]
DIGITS = ["--data.train_size=64", "--data.val_size=32", "--report.sheet.every_n_epochs=100"]
BASES = {
    "balancers": ("mtl_vision.__main__", "vision/multi_digits.yaml", DIGITS),
    "tasks_and_macs": ("mtl_vision.__main__", "vision/multi_digits.yaml", DIGITS),
    "table_networks": (
        "mtl_tabular.__main__",
        "tabular/multitab.yaml",
        ["--data.train_size=192", "--data.val_size=64", "--data.test_size=64"],
    ),
}


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_space_gives_trials_that_run(path, runner, tmp_path):
    program, base, small = BASES[path.stem]
    words = ("-c", str(ROOT / "configs" / base), *small, *TINY)
    sweep = Sweep.start(Definition.of(program, words, Plan.load(path)), tmp_path / "out")
    worker = Worker(sweep, runner, 2)
    for thread in worker.work():
        thread.join()
    sweep.close()
    assert worker.errors == []
    trials = sweep.trials()
    told = [t.user_attrs["outcome"] for t in trials]
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2, told
    assert all(len(t.values) == len(sweep.plan.objectives) for t in trials)

    if path.stem != "balancers":
        return
    # The config of a trial is complete, and running it gives the trial's own scores.
    write_config(sweep, trials[1], tmp_path / "best.yaml")
    held = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert (
        held["model"]["init_args"]["optimizer"]["init_args"]["lr"]
        == (trials[1].params["model.optimizer.lr"])
    )
    run = tmp_path / "again"
    own = ("--trainer.logger=false", f"--trainer.default_root_dir={run}")
    again = Trial(program, (("fit", "-c", str(tmp_path / "best.yaml"), *own),), run)
    outcome = runner.run(again)
    assert outcome.status == "finished", outcome.reason
    before = Run.read(sweep.folder / "trials" / "0001" / "seed_0").metrics
    assert outcome.metrics["val"]["tasks"] == before["val"]["tasks"]
    assert outcome.metrics["plan_hash"] == before["plan_hash"]
