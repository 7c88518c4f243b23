"""Blocks, records of what goes wrong, going on, and stopping early."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mtl_core.errors import ArgumentError
from mtl_core.stats.history import History
from mtl_core.stats.report import make_report
from mtl_core.stats.table import Table


def scores(made) -> set:
    """Rows without what a clock has measured."""
    rows = Table.read(made.table).rows
    timed = ("cost/cpu_seconds", "cost/peak_mib")
    return {replace(row, plan_hash="") for row in rows if row.metric not in timed}


def starts(tmp_path) -> list[str]:
    path = tmp_path / "starts"
    return path.read_text().splitlines() if path.is_file() else []


def test_every_method_and_task_with_every_seed(session, tmp_path):
    made = session()
    told = []
    made.run(lambda event, job: told.append((event, job.key)))
    assert len(told) == 2 * 8
    table = Table.read(made.table)
    for name in ("sum", "famo", "single"):
        assert set(table.by_seed(name, "left", "accuracy", "test")) == {0, 1}
    assert {row.plan_hash for row in table.rows} == {made.plan.hash}
    assert {row.split for row in table.rows} == {"test"}
    # All runs of a block share the seed of the data, so differences scatter less than scores.
    famo, base = (table.by_seed(m, "left", "accuracy", "test") for m in ("famo", "sum"))
    assert all(0.08 < famo[seed] - base[seed] < 0.12 for seed in (0, 1))
    assert table.by_seed("famo", "all", "cost/step_ms", "test") == {0: 20.0, 1: 20.0}
    assert table.by_seed("famo", "all", "cost/macs", "test") == {None: 1e6}
    report = make_report(table, made.plan, History.of(made.table))
    assert report.lines[0].startswith("Intervals")
    assert any("not measured: 2 seeds" in text for text in report.warnings)
    assert not list((tmp_path / "out").rglob("*.ckpt"))
    runs = made.runs.read().values()
    assert [run["status"] for run in runs] == ["finished"] * 8
    assert {run["position"] for run in runs} == {"1", "2", "3", "4"}
    assert len(starts(tmp_path)) == 8  # fit and test; those of single tasks do not count


def test_going_on_runs_nothing_that_has_ended(session, tmp_path):
    made = session(seeds=1)
    made.run()
    before = len(starts(tmp_path))
    again = session(seeds=1)
    again.run()
    assert len(starts(tmp_path)) == before
    # Two more seeds: the first one stays.
    more = session(seeds=3)
    more.run()
    assert len(starts(tmp_path)) == 3 * before
    fresh = session(folder="unbroken", seeds=3)
    fresh.run()
    assert scores(more) == scores(fresh)


def test_interrupted_at_any_run_it_ends_with_the_same_rows(session):
    whole = session(folder="whole")
    whole.run()
    for stop in (1, 4, 7):
        made = session(folder=f"stopped{stop}")
        count = 0

        def tell(event, job, stop=stop):
            nonlocal count
            count += event == "start"
            if count > stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            made.run(tell)
        session(folder=f"stopped{stop}").run()
        assert scores(made) == scores(whole)


def test_rows_written_before_a_crash_are_not_written_twice(session):
    """Between the rows of a run and its line in the list lies a moment."""
    made = session(seeds=1)
    made.run()
    before = Table.read(made.table)
    lines = made.runs.path.read_text().splitlines()
    made.runs.path.write_text("\n".join(lines[:-2]) + "\n")
    session(seeds=1).run()
    assert Table.read(made.table) == before
    assert len(made.runs.read()) == 4


@pytest.mark.parametrize(
    ("mode", "status", "reason"),
    [
        ("crash", "failed", "fit: ValueError: seed 1 does not work"),
        ("memory", "out of memory", "fit: MemoryError"),
        ("nan", "not finite", "fit: not finite: val/left/accuracy"),
        ("die", "killed", "fit: killed by SIGKILL"),
        ("hang", "timed out", "took more than 1 seconds"),
    ],
)
def test_what_goes_wrong_is_recorded_and_the_rest_goes_on(session, mode, status, reason):
    methods = {"sum": ["--who=sum"], "bad": ["--who=bad", f"--mode={mode}", "--bad_seed=1"]}
    run = {"timeout": 1, "profile": False} if mode == "hang" else {"profile": False}
    made = session(methods=methods, seeds=3, single=False, run=run)
    made.run()
    found = made.runs.read()["bad", "", 1]
    assert found["status"] == status
    assert reason in found["reason"]
    table = Table.read(made.table)
    assert set(table.by_seed("bad", "left", "accuracy", "test")) == {0, 2}
    assert set(table.by_seed("sum", "left", "accuracy", "test")) == {0, 1, 2}
    report = make_report(table, made.plan, History.of(made.table))
    assert f"bad, seed 1: {status}" in "\n".join(report.warnings)
    assert any("Failed runs: 1" in text for text in report.warnings)
    cell = report.results[0].cell("bad")
    assert cell.seeds == 2
    assert math.isfinite(cell.estimate)


def test_failed_runs_are_run_again_only_on_request(session, tmp_path):
    methods = {"sum": ["--who=sum"], "bad": ["--who=bad", "--mode=crash"]}
    base = {"methods": methods, "seeds": 1, "single": False, "run": {"profile": False}}
    made = session(**base)
    made.run()
    before = len(starts(tmp_path))
    session(**base).run()
    assert len(starts(tmp_path)) == before
    # What was wrong lies outside of the command lines.
    (tmp_path / "out" / "runs" / "seed_0" / "bad" / "fit" / "outcome.json").unlink()
    session(retry=True, **base).run()
    assert len(starts(tmp_path)) == before + 1
    assert len(History.of(made.table).failures) == 1


def test_a_plan_that_changes_goes_on_and_is_flagged(session):
    made = session(seeds=4, single=False)
    first = made.plan

    def tell(event, job):
        if event == "start" and job.block == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.run(tell)
    after = session(seeds=4, single=False, margins={"accuracy": 0.05, "error": 0.005})
    after.run()
    table, history = Table.read(after.table), History.of(after.table)
    assert set(history.plans) == {first.hash, after.plan.hash}
    report = make_report(table, after.plan, history)
    assert report.lines[0] == "**The plan was changed: margins changed after 2 of 4 blocks.**"


def test_other_command_lines_are_refused(session, tmp_path):
    session(seeds=1).run()
    with pytest.raises(ArgumentError, match="method famo must be what it was"):
        session(seeds=1, methods={"sum": ["--who=sum"], "famo": ["--gain=0.9"]})
    # A further method is no other one, also when an older one leaves and comes back changed.
    session(seeds=1, methods={"sum": ["--who=sum"], "uw": ["--who=uw"]}).run()
    with pytest.raises(ArgumentError, match="method famo"):
        session(seeds=1, methods={"sum": ["--who=sum"], "famo": ["--gain=0.9"]})


def test_two_processes_do_not_share_a_folder(session):
    made = session(seeds=1)

    def tell(event, job):
        session(seeds=1).run()

    with pytest.raises(ArgumentError, match="running comparison"):
        made.run(tell)


def test_it_stops_early_where_the_plan_allows_it(session):
    stopping = {"rule": "sign", "sides": 1, "least": 3}
    made = session(seeds=20, single=False, stopping=stopping, run={"profile": False})
    made.run()
    assert made.stopped_after == 7  # seven straight wins at alpha = 0.05
    history = History.of(made.table)
    assert history.looks == [1, 2, 3, 4, 5, 6, 7]
    report = make_report(Table.read(made.table), made.plan, history)
    assert not any("Not complete" in text or "looks" in text for text in report.warnings)
    equal = {"sum": ["--who=sum"], "other": ["--who=other"]}
    made = session(
        folder="equal",
        methods=equal,
        seeds=8,
        single=False,
        stopping=stopping,
        run={"profile": False},
    )
    made.run()
    assert made.stopped_after is None


def test_runs_of_a_block_at_once(session):
    one, two = session(folder="one"), session(folder="two", jobs=3)
    one.run()
    two.run()
    assert scores(one) == scores(two)
    with pytest.raises(ArgumentError, match="jobs"):
        session(jobs=0)


def test_single_task_runs_have_one_task(session, tmp_path):
    made = session(seeds=1, keep=True)
    made.run()
    rows = [row for row in Table.read(made.table).rows if row.method == "single"]
    assert {row.task for row in rows} == {"left", "right"}
    left = tmp_path / "out" / "runs" / "seed_0" / "single-left"
    assert (left / "fit" / "checkpoints" / "last.ckpt").is_file()
    (words,) = json.loads((left / "fit" / "outcome.json").read_text())["commands"]
    config = yaml.safe_load(Path(words[words.index("-c") + 1]).read_text())
    assert list(config["tasks"]) == ["left"]


def test_a_profile_that_fails_is_left_out(session):
    methods = {"sum": ["--who=sum", "--profile=broken"], "famo": ["--who=famo", "--width=3"]}
    made = session(seeds=1, methods=methods, single=False)
    made.run()
    table = Table.read(made.table)
    assert table.by_seed("sum", "all", "cost/macs", "test") == {}
    assert table.by_seed("famo", "all", "cost/macs", "test") == {None: 3e6}
