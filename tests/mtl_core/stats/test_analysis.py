import math
from dataclasses import replace

import numpy as np
import pytest
from result_tables import item_rows, make_plan, score_rows, table_of

from mtl_core.stats.analysis import (
    differences,
    interval_of,
    pair_test_name,
    scores_of,
    task_results,
)
from mtl_core.stats.intervals import t_interval, wilson
from mtl_core.stats.layout import seeds_by_items
from mtl_core.stats.pairwise import mcnemar, paired_t

EFFECTS = {"sum": 0.0, "famo": 0.1, "pcgrad": 0.002}
LEFT = {"tasks": {"left": "accuracy"}, "margins": {"accuracy": 0.005}}


def test_best_method_comes_first_in_either_direction():
    for result in task_results(table_of(score_rows(EFFECTS)), make_plan()):
        assert result.cells[0].method == "famo"
        assert result.noise == "seeds"


def test_cells_hold_students_interval_and_paired_tests():
    table, plan = table_of(score_rows(EFFECTS)), make_plan()
    result = task_results(table, plan)[0]
    values = list(table.by_seed("famo", "left", "accuracy", "test").values())
    assert result.cell("famo").interval == t_interval(values)
    assert result.cell("famo").values == tuple(values)
    base = table.by_seed("sum", "left", "accuracy", "test")
    p = paired_t(np.array(values) - list(base.values())).p_value
    names = [cell.method for cell in result.cells]
    i, j = names.index("famo"), names.index("sum")
    assert p <= result.p_values[i, j] <= 3 * p
    assert result.cell("famo").letters == "a"
    assert result.cell("sum").letters == result.cell("pcgrad").letters == "b"
    assert result.cell("famo").chances.better > 0.99
    assert result.cell("sum").chances is None
    assert result.cell("none") is None


def test_better_is_better_where_less_is_more():
    left, right = task_results(table_of(score_rows(EFFECTS)), make_plan())
    assert not right.higher_is_better
    assert right.cell("famo").chances.better > 0.99
    assert left.cell("pcgrad").chances.worse < 0.6


def test_correction_over_all_tasks_is_the_stricter_one():
    rows = score_rows({"sum": 0.0, "famo": 0.018, "pcgrad": 0.03}, seeds=range(6), draw=3)
    plan = make_plan(seeds=6)
    for result in task_results(table_of(rows), plan):
        for a in result.cells:
            for b in result.cells:
                if set(a.letters) & set(b.letters):
                    assert set(a.letters_everywhere) & set(b.letters_everywhere)


def test_a_failed_run_leaves_its_seed_out_of_its_own_pairs_only():
    rows = score_rows(EFFECTS)
    lost = [replace(r, value=math.nan) if (r.method, r.seed) == ("famo", 1) else r for r in rows]
    table, plan = table_of(lost), make_plan()
    result = task_results(table, plan)[0]
    assert result.cell("famo").seeds == 4
    assert result.cell("sum").seeds == 5
    one, two = (scores_of(table, plan, name, "left") for name in ("famo", "sum"))
    assert len(differences(one, two)[0]) == 4


def test_seeds_outside_of_the_plan_do_not_count():
    result = task_results(table_of(score_rows(EFFECTS, seeds=range(9))), make_plan())[0]
    assert all(cell.seeds == 5 for cell in result.cells)


def test_items_of_one_network():
    """Wilson's interval and McNemar's test: the items are what differs."""
    table, plan = table_of(item_rows({"sum": 0.5, "famo": 0.8})), make_plan(("sum", "famo"), **LEFT)
    result = task_results(table, plan)[0]
    cell = result.cell("famo")
    held = {m: table.by_item(m, "left", "accuracy", "test")[0] for m in ("sum", "famo")}
    hits = int(sum(held["famo"].values()))
    assert cell.interval == wilson(hits, 200)
    assert (cell.items, cell.seeds, result.noise) == (200, 1, "items")
    p = mcnemar(list(held["famo"].values()), list(held["sum"].values())).p_value
    assert result.p_values[0, 1] == pytest.approx(p)
    assert cell.letters != result.cell("sum").letters
    assert cell.chances.better > 0.99


def test_graded_items_of_one_network():
    rng = np.random.default_rng(0)
    rows = [
        replace(r, value=r.value * 0.5 + rng.random()) for r in item_rows({"sum": 0.2, "famo": 1})
    ]
    result = task_results(table_of(rows), make_plan(("sum", "famo"), **LEFT))[0]
    cell = result.cell("famo")
    assert cell.interval.low < cell.estimate < cell.interval.high
    assert cell.chances.better > 0.95
    assert result.p_values[0, 1] < 0.05
    alike = [replace(r, value=0.25) for r in item_rows({"sum": 0.5, "famo": 0.5}, items=3)]
    result = task_results(table_of(alike), make_plan(("sum", "famo"), **LEFT))[0]
    assert result.cell("sum").interval.width == 0
    assert result.p_values[0, 1] == 1


def test_seeds_by_items():
    table = table_of(item_rows({"sum": 0.5, "famo": 0.8}, items=40, seeds=(0, 1, 2)))
    plan = make_plan(("sum", "famo"), **LEFT)
    scores = scores_of(table, plan, "famo", "left")
    interval, noise = interval_of(scores, 0.95)
    assert noise == "seeds and items"
    assert interval == seeds_by_items(scores.grid([0, 1, 2], scores.common_items()))
    assert task_results(table, plan)[0].cell("famo").items == 40


def test_one_value_has_no_interval_no_letters_and_no_chances():
    result = task_results(table_of(score_rows(EFFECTS, seeds=[0])), make_plan())[0]
    assert result.noise == "nothing"
    assert all(c.interval is None and c.letters == "" and c.chances is None for c in result.cells)


def test_tasks_without_scores_and_methods_without_scores_are_left_out():
    rows = [r for r in score_rows(EFFECTS) if r.task == "left" and r.method != "famo"]
    (result,) = task_results(table_of(rows), make_plan())
    assert {cell.method for cell in result.cells} == {"sum", "pcgrad"}
    assert task_results(table_of([]), make_plan()) == []


def test_wilcoxon_only_where_it_can_become_significant():
    """Ten seeds give p >= 0.002, which Holm's first step among 28 pairs of eight never takes."""
    eight = [f"m{i}" for i in range(8)]
    assert pair_test_name(make_plan(seeds=10, test="auto")) == "Wilcoxon"
    assert pair_test_name(make_plan(seeds=9, test="auto")) == "paired t"
    assert pair_test_name(make_plan(eight, seeds=10, test="auto")) == "paired t"
    assert pair_test_name(make_plan(eight, seeds=11, test="auto")) == "Wilcoxon"
    assert pair_test_name(make_plan(eight, seeds=11, test="auto"), 2) == "paired t"
    assert pair_test_name(make_plan(eight, seeds=10, test="Wilcoxon")) == "Wilcoxon"
    assert pair_test_name(make_plan(stopping="sign")) == "e-process (sign)"


def test_letters_under_a_stopping_rule_hold_at_any_time():
    """They come from e-processes: few seeds cannot separate what a t-test would."""
    rows = score_rows(EFFECTS, seeds=range(5), noise=0.001)
    plain = task_results(table_of(rows), make_plan())[0]
    anytime = task_results(table_of(rows), make_plan(stopping="sign"))[0]
    assert plain.cell("famo").letters != plain.cell("sum").letters
    assert anytime.cell("famo").letters == anytime.cell("sum").letters
    rows = score_rows(EFFECTS, seeds=range(14), noise=0.001)
    anytime = task_results(table_of(rows), make_plan(seeds=14, stopping="sign"))[0]
    assert anytime.cell("famo").letters != anytime.cell("sum").letters
