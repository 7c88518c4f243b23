"""Sweeps end to end at toy size: resumed, interrupted, with runs that fail."""

import csv
from dataclasses import replace
from functools import partial

import pytest
import torch

from mtl_tabular.bench import Contender, Plan, sweep
from mtl_tabular.bench.run import data_of
from mtl_tabular.networks import SharedBottom

SMALL = partial(SharedBottom, token_width=0, shared=(8,), tower=(4,), dropout=0.0)


def plan(out, **given):
    facts = {
        "networks": {"a": Contender(network=SMALL, lr=0.05)},
        "task_counts": (2,),
        "complexities": {"easy": (1, 2)},
        "seeds": 1,
        "num_features": 4,
        "train_size": 256,
        "test_size": 128,
        "batch_size": 64,
        "epochs": 2,
        "accelerator": "cpu",
        "out": str(out),
    }
    return Plan(**{**facts, **given})


def values(outcomes):
    return {name: outcome.scores for name, outcome in outcomes.items()}


class Broken(SharedBottom):
    """Fails on one task alone, predicts NaN on the other, and works on both."""

    def __init__(self, tasks, **given):
        super().__init__(tasks, **given)
        if list(tasks) == ["task1"]:
            raise RuntimeError("no such\nluck")

    def decode(self, features, task):
        out = super().decode(features, task)
        return out * torch.nan if len(self.tasks) == 1 else out


class Stopped(SharedBottom):
    """Stops the sweep when it is built for the second time."""

    built = 0

    def __init__(self, tasks, **given):
        super().__init__(tasks, **given)
        Stopped.built += 1
        if Stopped.built == 2:
            raise KeyboardInterrupt


def test_finished_runs_are_not_trained_again(tmp_path):
    first = sweep(plan(tmp_path))
    assert len(first) == 3
    before = (tmp_path / "results.csv").read_text()
    seen = []
    again = sweep(plan(tmp_path), lambda done, total, name: seen.append((done, total)))
    assert again == first
    assert seen == [(3, 3)]
    assert (tmp_path / "results.csv").read_text() == before
    wider = sweep(plan(tmp_path, seeds=2))
    assert len(wider) == 6
    assert (tmp_path / "results.csv").read_text().startswith(before)
    assert values(first).items() <= values(wider).items()


def test_a_stopped_sweep_goes_on_and_ends_as_an_unstopped_one(tmp_path):
    arguments = SMALL.keywords
    networks = {"a": Contender(network=partial(Stopped, **arguments), lr=0.05)}
    Stopped.built = 0
    with pytest.raises(KeyboardInterrupt):
        sweep(plan(tmp_path / "stopped", networks=networks))
    rows = list(csv.DictReader((tmp_path / "stopped" / "results.csv").read_text().splitlines()))
    assert {row["role"] for row in rows} == {"multi"}
    resumed = sweep(plan(tmp_path / "stopped", networks=networks))
    assert Stopped.built == 4, "the finished run was built once, the stopped one twice"
    whole = sweep(plan(tmp_path / "whole", networks=networks))
    assert values(resumed) == values(whole)


def test_failures_are_recorded_and_stop_nothing(tmp_path):
    networks = {
        "broken": Contender(network=partial(Broken, **SMALL.keywords)),
        "a": Contender(network=SMALL),
    }
    held = plan(tmp_path, networks=networks)
    found = sweep(held)
    runs = {(run.network, run.task): found[run.digest] for run in held.runs()}
    assert runs["broken", ""].reason == ""
    assert runs["broken", "task1"].reason == "RuntimeError: no such luck"
    assert "NonFiniteLossError" in runs["broken", "task2"].reason
    assert all(not outcome.reason for key, outcome in runs.items() if key[0] == "a")
    before = (tmp_path / "results.csv").read_text()
    sweep(held)
    assert (tmp_path / "results.csv").read_text() == before
    sweep(replace(held, retry_failed=True))
    added = (tmp_path / "results.csv").read_text().removeprefix(before).splitlines()
    assert len(added) == 2


def test_rows_are_shared_by_the_tasks_of_a_cell():
    held = plan("unused")
    multi, *single = list(held.runs())
    assert [run.task for run in single] == ["task1", "task2"]
    whole = data_of(held, multi)
    for run in single:
        one = data_of(held, run)
        assert one.spec.plain() == whole.spec.plain()
        assert one.generator.seed == whole.generator.seed
        assert list(one.tasks) == [run.task]


def test_lines_say_what_they_measure(tmp_path):
    sweep(plan(tmp_path))
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert len({row["run"] for row in rows}) == 3
    ends = [row for row in rows if row["status"]]
    assert [row["status"] for row in ends] == ["ok"] * 3
    assert all(float(row["seconds"]) > 0 and int(row["parameters"]) > 0 for row in ends)
    primary = [row for row in rows if row["primary"] == "1"]
    assert {row["metric"] for row in primary} == {"explained_variance"}
    assert {(row["task"], row["degree"]) for row in primary} == {("task1", "1"), ("task2", "2")}
    # A linear task, and the half of the other's variance that is linear, are learned in no time.
    assert all(float(row["value"]) > 0 for row in primary)
