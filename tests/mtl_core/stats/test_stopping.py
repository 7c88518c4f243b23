import numpy as np
import pytest
from result_tables import make_plan, score_rows, table_of

from mtl_core.stats.eprocess import SignProcess
from mtl_core.stats.stopping import decided, outcomes_of, paired_scores, standings

CLEAR = {"sum": 0.0, "famo": 0.2, "pcgrad": -0.2}
WIDTHS = {"accuracy": 1.0, "error": 20.0}


def plan_of(rule="sign", **more):
    stopping = {"rule": rule, "widths": WIDTHS, **more}
    return make_plan(seeds=20, stopping=stopping)


def test_scores_are_paired_by_seed_and_more_is_better():
    rows = [r for r in score_rows(CLEAR) if (r.method, r.seed) != ("famo", 2)]
    a, b = paired_scores(table_of(rows), make_plan(), "famo", "sum", "right")
    assert len(a) == len(b) == 4
    assert (a > b).all()


def test_a_seed_is_one_outcome_of_all_tasks():
    """Tasks of one seed depend on each other: to count both would break the error rate."""
    table = table_of(score_rows(CLEAR, seeds=range(6)))
    (found,) = outcomes_of(table, plan_of(), "famo").values()
    assert found.shape == (6,)
    by_task = outcomes_of(table, plan_of(on="tasks"), "famo")
    assert set(by_task) == {"left", "right"}
    assert (by_task["right"] > 0).all()


def test_standings_are_those_of_the_processes_with_bonferronis_threshold():
    plan = plan_of()
    found = standings(table_of(score_rows(CLEAR, seeds=range(8))), plan)
    assert [(s.method, s.task) for s in found] == [("famo", "all"), ("pcgrad", "all")]
    process = SignProcess(0.025, comparisons=2)
    process.update(np.ones(8))
    assert found[0].better == pytest.approx(process.e_value)
    assert found[0].threshold == process.threshold == 80
    assert [s.verdict for s in found] == ["undecided", "undecided"]  # 57 of 80
    found = standings(table_of(score_rows(CLEAR, seeds=range(9))), plan)
    assert [s.verdict for s in found] == ["better", "worse"]


def test_it_ends_where_every_comparison_is_decided_and_not_before():
    plan, half = plan_of(least=10), {"sum": 0.0, "famo": 0.2, "pcgrad": 0.0}
    assert not decided(table_of(score_rows(CLEAR, seeds=range(9))), plan, 9)
    assert decided(table_of(score_rows(CLEAR, seeds=range(10))), plan, 10)
    assert not decided(table_of(score_rows(half, seeds=range(10))), plan, 10)
    assert not decided(table_of(score_rows(CLEAR, seeds=range(10))), make_plan(), 10)
    assert not decided(table_of([]), plan, 0)


@pytest.mark.parametrize("on", ["all", "tasks"])
def test_bounded_differences_use_the_width_of_the_range(on):
    plan = plan_of("bounded", on=on)
    table = table_of(score_rows({"sum": 0.0, "famo": 0.6, "pcgrad": -0.6}, seeds=range(20)))
    found = {(s.method, s.task): s.verdict for s in standings(table, plan)}
    task = "all" if on == "all" else "left"
    assert found["famo", task] == "better"
    assert found["pcgrad", task] == "worse"


@pytest.mark.slow
def test_equal_methods_are_rarely_told_apart_although_tasks_go_together():
    """Looked at after every one of twenty seeds; tasks share most of their noise."""
    plan, wrong, draws = plan_of(sides=2), 0, 300
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        rows = score_rows(dict.fromkeys(plan.methods, 0.0), seeds=range(20), draw=draw)
        # One more draw a method and seed, in both tasks alike.
        extra = {(m, s): rng.normal(0, 0.05) for m in plan.methods for s in range(20)}
        from dataclasses import replace

        rows = [
            replace(r, value=r.value + extra[r.method, r.seed] * (1 if r.task == "left" else -10))
            for r in rows
        ]
        wrong += any(s.verdict != "undecided" for s in standings(table_of(rows), plan))
    assert wrong / draws <= 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5
