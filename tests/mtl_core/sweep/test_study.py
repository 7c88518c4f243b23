"""Whose a trial is: claims, dead workers, and what a sweep refuses to go on with."""

import json
import multiprocessing
import os
import signal
import time

import pytest
from optuna.trial import TrialState

from mtl_core.errors import ArgumentError
from mtl_core.sweep import Plan
from mtl_core.sweep import study as study_module
from mtl_core.sweep.study import Definition, Sweep

OBJECTIVES = {"val/a/score": {"direction": "maximize"}}


def definition(space=None, words=(), **more) -> Definition:
    space = space or {"x": {"low": 0.0, "high": 1.0}}
    plan = Plan.parse({"space": space, "objectives": OBJECTIVES, "sampler": "random", **more})
    return Definition.of("sweep_program", words, plan)


def claim_and_hold(folder, storage, claimed) -> None:
    sweep = Sweep.start(definition(), folder, storage=storage)
    sweep.claim(5)
    claimed.set()
    time.sleep(100)


@pytest.fixture
def start():
    """Begin or go on with a sweep; at the end of the test all of them are closed."""
    begun = []

    def begin(*args, **more) -> Sweep:
        begun.append(Sweep.start(*args, **more))
        return begun[-1]

    yield begin
    for sweep in begun:
        sweep.close()


@pytest.fixture(params=["", "sqlite"], ids=["journal", "sqlite"])
def storage(request, tmp_path):
    return f"sqlite:///{tmp_path}/study.db" if request.param else ""


def test_numbers_are_handed_out_once_and_no_more_than_wanted(start, tmp_path, storage):
    one = start(definition(), tmp_path / "s", storage=storage, name="s")
    two = start(definition(), tmp_path / "s", storage=storage, name="s")
    claimed = [sweep.claim(5) for sweep in (one, two, one, two, one, two, one)]
    assert [t.number for t in claimed if t] == [0, 1, 2, 3, 4]
    assert claimed[5:] == [None, None]


def test_trial_of_a_killed_worker_is_taken_up_with_its_values(start, tmp_path, storage):
    context = multiprocessing.get_context("fork")
    claimed = context.Event()
    holder = context.Process(target=claim_and_hold, args=(tmp_path / "s", storage, claimed))
    holder.start()
    assert claimed.wait(60)
    sweep = start(definition(), tmp_path / "s", storage=storage)
    first = sweep.claim(5)
    assert first.number == 1  # the living keep theirs
    values = sweep.trials()[0].params
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    again = sweep.claim(5)
    assert (again.number, again.params) == (0, values)
    assert sweep.claim(5).number == 2


def test_trial_killed_while_it_was_drawn_gets_the_same_values(start, tmp_path):
    whole = start(definition(), tmp_path / "whole", name="s")
    params = whole.claim(1).params
    broken = start(definition(), tmp_path / "broken", name="s")
    broken.study.ask()  # and not a word more
    assert broken.claim(1).params == params


def test_released_trial_is_free_at_once(start, tmp_path, storage):
    one = start(definition(), tmp_path / "s", storage=storage)
    two = start(definition(), tmp_path / "s", storage=storage)
    trial = one.claim(1)
    assert two.claim(1) is None
    one.release(trial)
    one.close()
    assert two.claim(1).number == 0


def test_trial_of_another_machine_is_taken_up_when_it_shows_no_life(start, tmp_path, monkeypatch):
    here = start(definition(), tmp_path / "s")
    there = start(definition(), tmp_path / "s")
    there.worker = "elsewhere:1:abc"
    assert there.claim(1).number == 0
    there.close()
    assert here.claim(1) is None
    monkeypatch.setattr(study_module, "STALE", 0.0)
    assert here.claim(1).number == 0


def test_one_too_many_waits_until_more_are_wanted(start, tmp_path):
    sweep = start(definition(), tmp_path / "s")
    for _ in range(2):
        sweep.study.ask()  # as from machines without a common folder
    assert sweep.claim(1).number == 0
    assert sweep.claim(1) is None
    assert sweep.claim(2).number == 1


def test_ended_trials_are_not_claimed(start, tmp_path):
    sweep = start(definition(), tmp_path / "s")
    for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED):
        values = [1.0] if state is TrialState.COMPLETE else None
        sweep.study.tell(sweep.claim(3), values, state=state)
    assert sweep.claim(3) is None


def test_sweep_is_opened_as_it_was_started(start, tmp_path, storage):
    started = start(definition(words=["--a=1"]), tmp_path / "s", storage=storage, name="n")
    started.claim(1)
    opened = Sweep.open(tmp_path / "s")
    assert opened.definition == started.definition
    assert [t.params for t in opened.trials()] == [t.params for t in started.trials()]
    with pytest.raises(ArgumentError, match=r"sweep\.json"):
        Sweep.open(tmp_path / "other")


def test_another_space_config_or_program_is_refused(start, tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("a: 1")
    words = ["-c", str(config)]
    start(definition(words=words), tmp_path / "s")
    start(definition(words=words), tmp_path / "s")
    with pytest.raises(ArgumentError, match="space of the space's file must be that of the sweep"):
        start(definition({"x": [1, 2]}, words), tmp_path / "s")
    with pytest.raises(ArgumentError, match="words must"):
        start(definition(words=[*words, "--b=2"]), tmp_path / "s")
    config.write_text("a: 2")
    with pytest.raises(ArgumentError, match="configs must"):
        start(definition(words=words), tmp_path / "s")


def test_config_has_to_exist():
    with pytest.raises(ArgumentError, match="-c must name a file"):
        definition(words=["-c", "none.yaml"])
    with pytest.raises(ArgumentError, match="-c must name a file"):
        definition(words=["--config=none.yaml"])


def test_grid_limits_the_number_of_trials(start, tmp_path):
    sweep = start(definition({"x": [1, 2, 3]}, sampler="grid"), tmp_path / "s")
    assert sweep.total(40) == 3
    assert sweep.total(2) == 2


def test_home_names_storage_and_study(start, tmp_path):
    start(definition(), tmp_path / "s", name="named")
    held = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert held == {"storage": "", "name": "named"}
