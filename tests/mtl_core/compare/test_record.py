import pytest

from mtl_core.compare import Comparison, jobs_of
from mtl_core.compare.record import Ending, RunList, macs_row, run_rows, step_time
from mtl_core.errors import ArgumentError
from mtl_core.stats.table import Row, Table
from mtl_core.trial import Outcome

FIT = Outcome("finished", "", 3.0, 2.0, 100.0, {"steps": 50, "seconds": 2.5})
TEST = Outcome("finished", "", 1.0, 0.5, 120.0)


def one_job(plan_file, **more):
    plan = Comparison.load(plan_file(**more)).plan
    return plan, next(job for job in jobs_of(plan)[0] if job.method == "famo")


def test_an_ending_is_that_of_all_commands():
    ending = Ending.of({"fit": FIT, "test": TEST})
    assert (ending.status, ending.reason) == ("finished", "")
    assert (ending.seconds, ending.cpu_seconds, ending.peak_mib) == (4.0, 2.5, 120.0)
    lost = Outcome("out of memory", "MemoryError", 1.0, 0.5, 120.0)
    ending = Ending.of({"fit": FIT, "test": lost})
    assert (ending.status, ending.reason) == ("out of memory", "test: MemoryError")


def test_rows_carry_method_block_and_plan(plan_file, tmp_path):
    plan, job = one_job(plan_file)
    rows = [
        Row("Own", "left", "accuracy", 0.8, True, 5, "test", "", "", "x"),
        Row("Own", "left", "accuracy", 0.7, True, 5, "test", "", "night", "x"),
        Row("Own", "right", "error", 0.2, False, 5, "test", "", "", "x"),
        Row("Own", "right", "error", 0.3, False, 5, "val", "", "", "x"),
    ]
    Table(tuple(rows)).write(tmp_path / "results.csv")
    found = run_rows(job, plan, tmp_path / "results.csv", Ending.of({"fit": FIT, "test": TEST}))
    assert {row.method for row in found} == {"famo"}
    assert {(row.seed, row.block, row.plan_hash, row.split) for row in found} == {
        (job.seed, "1", plan.hash, "test")
    }
    scores = {(row.task, row.metric): row.value for row in found}
    assert scores == {
        ("left", "accuracy"): 0.8,
        ("left", "night/accuracy"): 0.7,
        ("right", "error"): 0.2,
        ("all", "cost/cpu_seconds"): 2.0,
        ("all", "cost/peak_mib"): 100.0,
        ("all", "cost/step_ms"): 50.0,
    }
    lacking = Table((rows[0],))
    lacking.write(tmp_path / "results.csv")
    with pytest.raises(ArgumentError, match="a finite value of right/error"):
        run_rows(job, plan, tmp_path / "results.csv", Ending.of({"fit": FIT}))


def test_step_time_and_macs(plan_file):
    assert step_time([FIT]) == 50.0
    assert step_time([TEST]) is None
    plan, _ = one_job(plan_file)
    row = macs_row("famo", plan, {"together": {"macs": 12}})
    assert (row.metric, row.value, row.seed) == ("cost/macs", 12.0, None)


def test_what_is_trained_twice_costs_both_trainings(plan_file, tmp_path):
    plan, job = one_job(plan_file)
    rows = [Row("Own", "left", "accuracy", 0.8, True, 5, "test", "", "", "x")]
    rows += [Row("Own", "right", "error", 0.2, False, 5, "test", "", "", "x")]
    Table(tuple(rows)).write(tmp_path / "results.csv")
    first = Outcome("finished", "", 6.0, 5.0, 80.0, {"steps": 150, "seconds": 5.5})
    ending = Ending.of({"first": first, "fit": FIT, "test": TEST})
    found = run_rows(job, plan, tmp_path / "results.csv", ending)
    costs = {row.metric: row.value for row in found if row.metric.startswith("cost/")}
    assert costs == {"cost/cpu_seconds": 7.0, "cost/peak_mib": 100.0, "cost/step_ms": 40.0}


@pytest.mark.parametrize("blind", [False, True])
def test_the_list_of_runs_is_read_back(plan_file, tmp_path, blind):
    plan, job = one_job(plan_file, blind=blind)
    runs = RunList(tmp_path / "runs.csv", plan)
    assert runs.read() == {}
    lost = Outcome("failed", 'fit: "odd", reason\nof two lines', 1.0, 0.5, 120.0)
    runs.append(job, Ending.of({"fit": lost}))
    runs.append(job, Ending.of({"fit": FIT}))
    assert ("famo" in runs.path.read_text()) != blind
    (found,) = runs.read().values()
    assert set(runs.read()) == {job.key}
    assert (found["status"], found["method"]) == ("finished", "famo")
    with runs.path.open("a") as file:
        file.write("2,1,sum,")  # cut short by a crash
    assert set(runs.read()) == {job.key}
