"""Trials that end in every way, workers side by side, pruning, and going on after a kill."""

import io
import multiprocessing
import os
import sys
import time

import pytest
from optuna.trial import TrialState
from rich.console import Console

from mtl_core.sweep import Plan
from mtl_core.sweep.command import main
from mtl_core.sweep.live import follow
from mtl_core.sweep.study import Definition, Sweep
from mtl_core.sweep.worker import Worker

SCORE = {"score": {"value": "val/a/score", "direction": "maximize"}}
X = {"x": {"low": 0.0, "high": 1.0}}


@pytest.fixture
def start(program, tmp_path):
    """Begin or go on with a sweep in a folder of the test's own."""

    begun = []

    def begin(space, *words, name="s", objectives=SCORE, sampler="random", **more) -> Sweep:
        content = {"space": space, "objectives": objectives, "sampler": sampler, **more}
        held = Definition.of(program, words, Plan.parse(content))
        begun.append(Sweep.start(held, tmp_path / name))
        return begun[-1]

    yield begin
    for sweep in begun:
        sweep.close()


def work(sweep, runner, total, jobs=1, **more) -> list:
    worker = Worker(sweep, runner, total, **more)
    for thread in worker.work(jobs):
        thread.join()
    sweep.close()
    assert worker.errors == []
    return sweep.trials()


def told(trial):
    return trial.user_attrs["outcome"]


def test_trials_end_with_the_objective_of_their_last_validation(start, runner):
    trials = work(start(X, seeds=[0, 100]), runner, 4)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    for t in trials:
        assert t.value == pytest.approx(1 - (t.params["x"] - 0.3) ** 2 + 0.05)
        assert told(t)["status"] == "finished"


def test_every_bad_end_has_its_reason_and_the_sweep_goes_on(start, runner):
    space = {"mode": ["ok", "crash", "memory", "nan", "die"]}
    trials = work(start(space, sampler="grid"), runner, 40)
    assert [t.params["mode"] for t in trials] == space["mode"]
    found = {t.params["mode"]: (told(t)["status"], told(t)["reason"]) for t in trials}
    assert found["ok"] == ("finished", "")
    assert found["crash"] == ("failed", "ValueError: x is 0.5")
    assert found["memory"] == ("out of memory", "MemoryError")
    assert found["die"] == ("killed", "killed by SIGKILL")
    assert found["nan"][0] == "not finite"
    assert "score needs a finite val/a/score" in found["nan"][1]
    assert [t.state for t in trials] == [TrialState.COMPLETE] + [TrialState.FAIL] * 4


def test_conditional_parameters_reach_the_command(start, runner):
    more = {"class_path": "ok", "init_args": {"extra": {"low": 1.0, "high": 2.0}}}
    space = {"mode": {"choices": {"plain": "ok", "more": more}}}
    for t in work(start(space), runner, 6):
        extra = t.params.get("mode.more.extra", 0.0)
        assert t.value == pytest.approx(1 - 0.2**2 + extra)


def test_timeout_is_recorded(start, runner):
    (trial,) = work(start(X, "--sleep=30"), runner, 1, timeout=1)
    assert (trial.state, told(trial)["status"]) == (TrialState.FAIL, "timed out")


def test_several_objectives(start, runner):
    objectives = {**SCORE, "parameters": {"direction": "minimize"}}
    for t in work(start(X, objectives=objectives), runner, 3):
        expected = [1 - (t.params["x"] - 0.3) ** 2, int(1000 * t.params["x"])]
        assert t.values == pytest.approx(expected)


def test_terminal_shows_what_runs_and_how_it_ended(start, runner):
    sweep, out = start(X, "--pause=0.4"), io.StringIO()
    worker = Worker(sweep, runner, 2)
    follow(worker, worker.work(), Console(file=out, force_terminal=True, width=160))
    assert "running, epoch" in out.getvalue()
    assert "2 of 2 trials ended, 2 complete" in out.getvalue().rsplit("s: ", 1)[-1]


def test_take_limits_what_one_worker_runs(start, runner):
    assert len(work(start(X), runner, 5, take=2)) == 2
    assert len(work(start(X), runner, 5)) == 5


def test_jobs_side_by_side_draw_what_one_draws(start, runner):
    one = work(start(X, name="one"), runner, 8)
    three = work(start(X, name="three"), runner, 8, jobs=3)
    assert [t.params for t in one] == [t.params for t in three]


def pruned_sweep(start, runner, name, *words):
    pruner = {"name": "median", "n_startup_trials": 2}
    sweep = start(
        {"x": [0.3, 0.4, 0.9, 0.35, 1.0, 0.2]}, *words, name=name, pruner=pruner, sampler="grid"
    )
    return work(sweep, runner, 6)


def test_hopeless_trials_are_pruned_and_others_keep_their_value(start, runner):
    trials = pruned_sweep(start, runner, "slow", "--pause=0.4")
    states = [t.state for t in trials]
    assert states[:2] == [TrialState.COMPLETE] * 2
    assert states[2] is states[4] is TrialState.PRUNED
    assert told(trials[4])["reason"] == "pruned at validation 1"
    assert told(trials[4])["seconds"] < 1.5  # and not four times 0.4
    for t in trials:
        if t.state is TrialState.COMPLETE:
            assert t.value == pytest.approx(1 - (t.params["x"] - 0.3) ** 2)


def test_pruning_does_not_depend_on_who_is_faster(start, runner):
    """A run that is over before anybody looked is judged by its validations one by one."""
    slow = pruned_sweep(start, runner, "slow", "--pause=0.3")
    fast = pruned_sweep(start, runner, "fast")
    for a, b in zip(slow, fast, strict=True):
        assert (a.state, a.value, a.intermediate_values) == (
            b.state,
            b.value,
            b.intermediate_values,
        )


def test_finished_run_that_nobody_told_of_is_not_run_again(start, runner):
    sweep = start(X)
    worker = Worker(sweep, runner, 1)
    trial = sweep.claim(1)
    sweep.study.tell, tell = lambda *a, **k: None, sweep.study.tell  # as if killed before
    worker.run(trial)
    sweep.release(trial)
    sweep.study.tell = tell
    (again,) = work(sweep, runner, 1)
    assert again.state is TrialState.COMPLETE
    starts = sweep.folder / "trials" / "0000" / "seed_0" / "starts"
    assert starts.read_text() == "x"


def test_interrupted_trial_is_handed_back_and_run_anew(start, runner):
    sweep = start(X, "--sleep=1")
    worker = Worker(sweep, runner, 2)
    threads = worker.work()
    starts = sweep.folder / "trials" / "0000" / "seed_0" / "starts"
    wait_for(starts.is_file)
    worker.stopping.set()
    threads[0].join()
    assert [t.state for t in sweep.trials()] == [TrialState.RUNNING]
    assert len(work(sweep, runner, 2)) == 2
    assert starts.read_text() == "x"  # the folder was made anew


def be_command(words, folder) -> None:
    os.chdir(folder)
    out = os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    main("sweep_program", words)


def command(words, folder) -> multiprocessing.Process:
    """A process of its own, without the seconds that an interpreter takes to start."""
    made = multiprocessing.get_context("fork").Process(target=be_command, args=(words, folder))
    made.start()
    return made


def finish(process, seconds=100) -> int:
    process.join(seconds)
    assert process.exitcode is not None
    return process.exitcode


def wait_for(condition, seconds=60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def space_file(program, tmp_path):
    (tmp_path / "space.yaml").write_text(
        "objectives: {score: {value: val/a/score, direction: maximize}}\n"
        "sampler: {name: tpe, n_startup_trials: 3}\n"
        "space: {x: {low: 0.0, high: 1.0}, mode: [ok, crash]}\n"
    )
    return "space.yaml"


def ended(folder):
    if not (folder / "sweep.json").is_file():
        return []
    return [t for t in Sweep.open(folder).trials() if t.state.is_finished()]


def test_two_workers_on_one_journal(space_file, tmp_path):
    words = ["--space", space_file, "-n", "10", "--out", "out", "--sleep=0.3"]
    workers = [command(words, tmp_path) for _ in range(2)]
    assert [finish(worker) for worker in workers] == [0, 0]
    trials = Sweep.open(tmp_path / "out").trials()
    assert [t.number for t in trials] == list(range(10))
    assert all(t.state.is_finished() for t in trials)
    for number in range(10):  # each was run once, by one of the two
        folder = tmp_path / "out" / "trials" / f"{number:04d}" / "seed_0"
        assert (folder / "starts").read_text() == "x"
    assert len({t.user_attrs["worker"] for t in trials}) == 2


def test_sweep_killed_at_any_point_ends_as_an_unbroken_one(space_file, tmp_path):
    words = ["--space", space_file, "-n", "12", "--sleep=0.1", "--out"]
    assert finish(command([*words, "whole"], tmp_path)) == 0
    for after in (1, 4, 9):
        process = command([*words, "broken"], tmp_path)
        wait_for(lambda after=after: len(ended(tmp_path / "broken")) >= after)
        process.kill()
        finish(process)
    assert finish(command([*words, "broken"], tmp_path)) == 0
    whole, broken = (Sweep.open(tmp_path / name).trials() for name in ("whole", "broken"))
    assert [(t.number, t.params, t.state, t.values) for t in whole] == [
        (t.number, t.params, t.state, t.values) for t in broken
    ]


def test_a_signal_of_the_scheduler_ends_it_in_good_order(space_file, tmp_path):
    (tmp_path / space_file).write_text(
        "objectives: {seconds: {direction: minimize}}\nspace: {x: [1]}"
    )
    words = ["--space", space_file, "-n", "3", "--out", "out", "--sleep=30"]
    process = command(words, tmp_path)
    wait_for(lambda: list((tmp_path / "out").rglob("starts")))
    process.terminate()
    assert finish(process) == 130
    assert "the same command goes on" in (tmp_path / "out.txt").read_text()
    (trial,) = Sweep.open(tmp_path / "out").trials()
    assert trial.state is TrialState.RUNNING
    assert trial.user_attrs["worker"] == ""
