"""First lines, warnings, blinding and changed plans; the tables are `mtl_core.stats.grids`."""

import math
from dataclasses import replace

import pytest
from result_tables import item_rows, make_plan, score_rows, table_of

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.stats.history import Failure, History
from mtl_core.stats.render import latex, markdown, page, summary_markdown
from mtl_core.stats.report import blocks_of, make_report
from mtl_core.stats.table import Row

NAMES = ("Alpha-Balancer", "Beta-Balancer", "Gamma-Balancer")
EFFECTS = dict(zip(NAMES, (0.0, 0.1, 0.002), strict=True))


def test_first_lines_say_what_the_numbers_are():
    plan = make_plan(correction="bonferroni", alpha=0.1)
    rows = score_rows({"sum": 0.0, "famo": 0.1, "pcgrad": 0.0}, digest=plan.hash)
    history = History()
    history.look(5)
    report = make_report(table_of(rows), plan, history)
    assert report.warnings == ()
    intervals, tests, looks = report.lines
    assert intervals.startswith("Intervals (90 %) contain training randomness")
    assert "one fixed sample of test items" in intervals
    assert "paired t" in tests
    assert "Bonferroni" in tests
    assert plan.hash in looks
    assert "1 (after 5 of 5 blocks)" in looks


def test_intervals_over_items_say_so():
    plan = make_plan(("sum", "famo"), tasks={"left": "accuracy"}, margins={"accuracy": 0})
    report = make_report(table_of(item_rows({"sum": 0.5, "famo": 0.8})), plan)
    assert "test items, not training randomness" in report.lines[1]
    assert any("Training randomness not measured: 1 seed" in text for text in report.warnings)
    assert report.grids[0].header[-1] == "items"
    assert report.grids[0].rows[0][-1] == "200"


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_no_measurement(seeds):
    plan = make_plan(seeds=seeds)
    rows = score_rows({"sum": 0.0, "famo": 0.1, "pcgrad": 0.0}, seeds=range(seeds))
    report = make_report(table_of(rows), plan)
    assert any("raining randomness not measured" in text for text in report.warnings)
    if seeds == 1:
        assert "≈" in report.grids[0].rows[0][1]  # no interval, so no digits
        assert "nothing" in report.lines[1]


def test_a_changed_margin_is_told_in_the_first_line():
    old = make_plan(seeds=40)
    new = make_plan(seeds=40, margins={"accuracy": 0.02, "error": 0.05})
    rows = score_rows({"sum": 0.0, "famo": 0.1, "pcgrad": 0.0}, seeds=range(40))
    rows = [replace(r, plan_hash=(old if int(r.block) <= 12 else new).hash) for r in rows]
    history = History()
    history.remember(old)
    report = make_report(table_of(rows), new, history)
    assert report.lines[0] == "**The plan was changed: margins changed after 12 of 40 blocks.**"
    for text in (markdown(report, heading=False), summary_markdown(report)):
        assert text.startswith("- **The plan was changed: margins changed after 12 of 40 blocks.**")
    assert "margins changed after 12 of 40 blocks" in latex(report)
    assert "margins changed after 12 of 40 blocks" in page(report)


def test_a_dropped_method_is_told():
    old, new = make_plan(), make_plan(("sum", "famo"))
    rows = score_rows({"sum": 0.0, "famo": 0.1, "pcgrad": 0.3}, digest=old.hash)
    history = History()
    history.remember(old)
    report = make_report(table_of(rows), new, history)
    assert "method pcgrad dropped after 5 of 5 blocks" in report.lines[0]
    assert "test changed" not in report.lines[0]


@pytest.mark.parametrize("single", [False, True])
def test_a_blind_report_contains_no_name(single):
    """In no format, also where a run failed and where a method was dropped from the plan."""
    old = make_plan((*NAMES, "Delta-Balancer"), single=single)
    plan = make_plan(NAMES, single=single, blind=True)
    rows = score_rows(EFFECTS, digest=old.hash)
    rows += [
        Row(n, "all", "cost/cpu_seconds", 3.5, False, s, "test", "", str(s + 1), old.hash)
        for n in NAMES
        for s in range(5)
    ]
    if single:
        rows += score_rows({"single": 0.05}, digest=old.hash, draw=1)
    history = History()
    history.remember(old)
    history.failures.append(Failure(NAMES[2], "", 4, "failed", f"{NAMES[2]} is broken"))
    report = make_report(table_of(rows), plan, history, with_ranks=True)
    shown = {"names": str(vars(report)["labels"].values())}
    shown |= {"md": markdown(report), "tex": latex(report), "html": page(report)}
    shown["short"] = summary_markdown(report)
    for kind, text in shown.items():
        for name in (*NAMES, "Delta-Balancer"):
            assert name not in text, (kind, name)
    assert "method 1" in shown["md"]
    assert "baseline" not in shown["md"]
    assert "a method dropped after 5 of 5 blocks" in report.lines[0]

    open_report = make_report(table_of(rows), plan, history, unblind=True)
    assert all(name in markdown(open_report) for name in NAMES)
    assert "names were shown after 5 of 5 blocks" in open_report.lines[-1]


def test_looks_before_the_end_are_counted_and_warned_of():
    plan = make_plan()
    rows = score_rows({"sum": 0.0, "famo": 0.1, "pcgrad": 0.0}, digest=plan.hash)
    history = History()
    history.look(2)
    report = make_report(table_of(rows), plan, history)
    assert "2 (after 2, 5 of 5 blocks)" in report.lines[-1]
    assert any("there were 2 looks" in text for text in report.warnings)
    anytime = make_report(table_of(rows), make_plan(stopping="sign"), history)
    assert not any("looks" in text for text in anytime.warnings)
    assert "e-processes against the baseline" in [grid.title for grid in anytime.grids]


def test_what_is_incomplete_failed_or_lost_is_warned_of():
    plan = make_plan(seeds=6, single=True)
    rows = score_rows({"sum": 0.0, "famo": 0.1}, digest=plan.hash)
    rows[0] = replace(rows[0], value=math.nan)
    history = History()
    history.failures += [
        Failure("pcgrad", "", 0, "not finite", "loss of left = nan"),
        Failure("single", "left", 0, "out of memory", ""),
    ]
    text = "\n".join(make_report(table_of(rows), plan, history).warnings)
    assert "Without any score: pcgrad." in text
    assert "Not complete: 5 of 6 blocks." in text
    assert "Failed runs: 2." in text
    assert "pcgrad, seed 0: not finite: loss of left = nan" in text
    assert "single left, seed 0: out of memory" in text
    assert "not finite and were left out: 1" in text


def test_rows_of_a_report():
    plan = make_plan()
    rows = score_rows({"sum": 0.0, "famo": 0.1, "pcgrad": 0.0}, digest=plan.hash)
    report = make_report(table_of(rows), plan, with_ranks=False)
    assert [grid.title for grid in report.grids] == ["left", "right", "all tasks"]
    left = report.grids[0]
    assert left.rows[0][0] == "famo"
    assert "0.80 ± 0.02" in left.rows[0][1] or "±" in left.rows[0][1]
    assert [row[0] for row in left.rows if "baseline" in row] == ["sum"]
    assert all(len(row) == len(grid.header) for grid in report.grids for row in grid.rows)
    assert {row[0] for row in report.summary.rows} == {"sum", "famo", "pcgrad"}
    assert len(report.results) == 3
    assert "gain over sum" in report.grids[2].header[1]


def test_refused():
    plan, rows = make_plan(), score_rows({"sum": 0.0, "famo": 0.1})
    other = make_plan(tasks={"left": "acuracy"}, margins={"acuracy": 0})
    with pytest.raises(UnknownNameError, match="left/acuracy"):
        make_report(table_of(rows), other)
    with pytest.raises(ArgumentError, match="twice"):
        make_report(table_of([*rows, rows[0]]), plan)


def test_a_task_that_nobody_has_measured_is_warned_of():
    rows = [row for row in score_rows({"sum": 0.0, "famo": 0.1}) if row.task == "left"]
    assert "Tasks without any score: right." in make_report(table_of(rows), make_plan()).warnings


def test_blocks_are_those_with_a_score_of_the_plan():
    plan = make_plan()
    rows = score_rows({"sum": 0.0}, seeds=range(3))
    rows += score_rows({"other": 0.0}, seeds=range(4))
    rows += score_rows({"sum": 0.0}, seeds=[99])[:1]
    assert len(blocks_of(table_of(rows), plan)) == 3
