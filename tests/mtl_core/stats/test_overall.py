from dataclasses import replace

import numpy as np
import pytest
from result_tables import make_plan, score_rows, table_of

from mtl_core.errors import ArgumentError
from mtl_core.stats.analysis import task_results
from mtl_core.stats.gains import delta_m_interval
from mtl_core.stats.overall import overall, ranks, score_matrix

EFFECTS = {"sum": 0.0, "famo": 0.1, "pcgrad": 0.002, "single": 0.05}
HIGHER = [True, False]


def test_delta_m_has_the_baselines_own_uncertainty():
    table, plan = table_of(score_rows(EFFECTS)), make_plan(single=True)
    found = overall(table, plan)
    assert (found.reference, found.reference_seeds) == ("single", 5)
    scores, singles = (score_matrix(table, plan, name)[1] for name in ("famo", "single"))
    expected = delta_m_interval(scores, singles, HIGHER, paired=True)
    cell = found.result.cell("famo")
    assert cell.interval == expected
    assert cell.estimate == pytest.approx(expected.estimate)
    assert cell.letters == "a"
    assert found.result.cell("sum").letters == "b"


def test_other_seeds_of_the_reference_are_not_paired():
    rows = score_rows({k: v for k, v in EFFECTS.items() if k != "single"})
    rows += score_rows({"single": 0.05}, seeds=[1, 2, 3], draw=1)
    table, plan = table_of(rows), make_plan(single=True)
    found = overall(table, plan)
    scores, singles = (score_matrix(table, plan, name)[1] for name in ("famo", "single"))
    assert found.result.cell("famo").interval == delta_m_interval(scores, singles, HIGHER)


def test_without_single_tasks_gains_are_over_the_baseline():
    rows = [r for r in score_rows(EFFECTS) if r.method != "single"]
    found = overall(table_of(rows), make_plan())
    assert found.reference == "sum"
    assert found.result.cell("sum").estimate == pytest.approx(0, abs=1e-9)
    assert found.result.cell("sum").interval is None
    assert found.result.cell("famo").interval.low > 0


def test_tasks_weigh_alike_whatever_their_unit():
    """A task in other units changes nothing."""
    rows = score_rows(EFFECTS)
    scaled = [replace(r, value=r.value * 1000) if r.task == "right" else r for r in rows]
    plans = [make_plan(), make_plan(margins={"accuracy": 0.005, "error": 50})]
    one, two = (overall(table_of(r), p) for r, p in zip((rows, scaled), plans, strict=True))
    assert one.margin == pytest.approx(two.margin)
    for a, b in zip(one.result.cells, two.result.cells, strict=True):
        assert a.values == pytest.approx(b.values)
        assert a.letters == b.letters


def test_margin_of_all_tasks_follows_from_theirs_unless_given():
    table = table_of(score_rows(EFFECTS))
    found = overall(table, make_plan())
    _, single = score_matrix(table, make_plan(), "single")
    assert found.margin == pytest.approx(50 * (np.array([0.005, 0.05]) / single.mean(0)).sum())
    given = {"accuracy": 0.005, "error": 0.05, "all": 0.25}
    assert overall(table, make_plan(margins=given)).margin == 0.25


def test_a_seed_without_one_of_its_tasks_does_not_count():
    lost = [r for r in score_rows(EFFECTS) if (r.method, r.task, r.seed) != ("famo", "left", 2)]
    found = overall(table_of(lost), make_plan())
    assert found.result.cell("famo").seeds == 4


def test_nothing_to_relate_to():
    rows = [r for r in score_rows(EFFECTS) if r.method != "single"]
    assert overall(table_of(rows), make_plan(baseline=None)) is None
    assert overall(table_of([]), make_plan()) is None
    zero = [replace(r, value=0.0) if r.method == "sum" else r for r in rows]
    assert overall(table_of(zero), make_plan()) is None
    left = {"tasks": {"left": "accuracy"}, "margins": {"accuracy": 0.1}}
    assert overall(table_of(rows), make_plan(**left)) is None  # its only task says the same


def test_bounded_stopping_gives_letters_too():
    widths = {"accuracy": 1.0, "error": 20.0}
    plan = make_plan(stopping={"rule": "bounded", "widths": widths})
    found = overall(table_of(score_rows(EFFECTS)), plan)
    assert all(cell.letters for cell in found.result.cells)


def three_tasks():
    rows = score_rows({k: v for k, v in EFFECTS.items() if k != "single"})
    rows += [replace(r, task="third") for r in score_rows(EFFECTS, draw=4) if r.task == "left"]
    tasks = {"left": "accuracy", "right": "error", "third": "accuracy"}
    return table_of(rows), make_plan(tasks=tasks)


def test_a_new_task_is_predicted_from_three_on():
    table, plan = three_tasks()
    found = overall(table, plan)
    assert set(found.new_tasks) == {"famo", "pcgrad"}
    assert found.new_tasks["famo"].better > found.new_tasks["pcgrad"].better
    assert overall(table_of(score_rows(EFFECTS)), make_plan()).new_tasks == {}


def test_ranks_on_request():
    table, plan = three_tasks()
    found = ranks(task_results(table, plan), plan)
    assert found.methods[0] == "famo"
    assert found.means[0] == 1
    assert 0 < found.p_value < 0.2
    assert set(found.letters) == set(plan.methods)
    with pytest.raises(ArgumentError, match="at least 2 tasks and 3 methods"):
        ranks(task_results(table, plan)[:1], plan)
