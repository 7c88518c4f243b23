import pytest
from result_tables import make_plan, score_rows, table_of

from mtl_core.errors import ArgumentError
from mtl_core.stats.history import Failure, History, block_of, history_path, plan_changes

EFFECTS = {"sum": 0.0, "famo": 0.01}


def known(*plans):
    history = History()
    for plan in plans:
        history.remember(plan)
    return history


def test_it_is_kept_beside_the_table(tmp_path):
    table = tmp_path / "results.csv"
    history = known(make_plan())
    history.look(3)
    history.look(3)
    history.look(5)
    history.unblind(3)
    history.unblind(5)
    history.failures.append(Failure("famo", "", 2, "out of memory", "MemoryError"))
    history.save(table)
    assert history_path(table).name == "results.history.json"
    assert History.of(table) == history
    assert (history.looks, history.unblinded) == ([3, 5], 3)
    assert History.of(tmp_path / "other.csv") == History()
    history_path(table).write_text('{"odd": 1}')
    with pytest.raises(ArgumentError, match="plans, looks"):
        History.of(table)


def test_a_block_is_the_rows_own_else_its_seed():
    rows = score_rows(EFFECTS, seeds=[7])
    assert block_of(rows[0]) == "1"
    assert block_of(score_rows(EFFECTS, seeds=[7], blocks=False)[0]) == "7"


def test_a_margin_that_was_changed_between_is_told_with_the_number_of_blocks():
    old = make_plan(seeds=40)
    new = make_plan(seeds=40, margins={"accuracy": 0.02, "error": 0.05})
    rows = score_rows(EFFECTS, seeds=range(40))
    of_block = [row for row in rows if int(row.block) <= 12]
    from dataclasses import replace

    changed = [replace(row, plan_hash=old.hash) for row in of_block]
    changed += [replace(row, plan_hash=new.hash) for row in rows[len(of_block) :]]
    found = plan_changes(new, table_of(changed), known(old, new))
    assert found == ["margins changed after 12 of 40 blocks"]
    # The plan as it was all the time is no change; nor is a table without rows.
    same = table_of([replace(row, plan_hash=new.hash) for row in rows])
    assert plan_changes(new, same, known(new)) == []
    assert plan_changes(new, table_of([]), known(old, new)) == []


def test_several_changes_one_after_the_other():
    plans = [make_plan(), make_plan(alpha=0.1), make_plan(methods=("sum", "famo"), alpha=0.1)]
    rows = score_rows(EFFECTS, seeds=[0], digest=plans[0].hash)
    rows += [r for r in score_rows(EFFECTS, seeds=[0, 1], digest=plans[1].hash) if r.block == "2"]
    assert plan_changes(plans[2], table_of(rows), known(*plans)) == [
        "alpha changed after 1 of 5 blocks",
        "method pcgrad dropped after 2 of 5 blocks",
    ]


def test_a_plan_that_nobody_remembers():
    table = table_of(score_rows(EFFECTS, seeds=[0, 1], digest="0123"))
    assert plan_changes(make_plan(), table, History()) == [
        "another plan (0123) after 2 of 5 blocks"
    ]
    table = table_of(score_rows(EFFECTS, seeds=[0, 1]))
    (found,) = plan_changes(make_plan(), table, History())
    assert "without a hash" in found
