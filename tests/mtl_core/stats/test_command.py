"""`mtl_core.stats.command` and ``python -m mtl_core.stats``."""

import runpy
import sys

import pytest
import yaml
from result_tables import make_plan, score_rows, table_of

from mtl_core.stats.command import main, marked_text, power_lines, write_report
from mtl_core.stats.history import History
from mtl_core.stats.report import make_report
from mtl_core.stats.table import Table

EFFECTS = {"sum": 0.0, "famo": 0.1, "pcgrad": 0.0}


@pytest.fixture
def files(tmp_path):
    plan = make_plan()
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(dict(plan.content)))
    table = tmp_path / "results.parquet"
    table_of(score_rows(EFFECTS, digest=plan.hash)).write(table)
    return tmp_path


def test_report_writes_all_formats_and_counts_the_look(files, monkeypatch, capsys):
    words = ["report", str(files / "results.parquet"), "--plan", str(files / "plan.yaml")]
    monkeypatch.setattr(sys, "argv", ["mtl_core.stats", *words, "--out", str(files / "out")])
    runpy.run_module("mtl_core.stats", run_name="__main__")
    names = {path.name for path in (files / "out").iterdir()}
    figures = {f"figure_{task}.png" for task in ("left", "right", "all")}
    assert names == {"report.md", "report.tex", "report.html", *figures}
    assert "![left](figure_left.png)" in (files / "out" / "report.md").read_text()
    assert History.of(files / "results.parquet").looks == [5]
    assert "famo" in capsys.readouterr().out
    main([*words, "--out", str(files / "out")])
    assert History.of(files / "results.parquet").looks == [5]


def test_marks_in_a_page_get_the_same_report(files):
    page = files / "page.md"
    page.write_text("<!-- compare:toy -->\n<!-- /compare:toy -->\n")
    words = ["report", str(files / "results.parquet"), "--plan", str(files / "plan.yaml")]
    main([*words, "--into", str(page), "--marker", "compare:toy"])
    report = make_report(Table.read(files / "results.parquet"), make_plan())
    assert page.read_text() == (
        f"<!-- compare:toy -->\n{marked_text(report, 'compare:toy')}<!-- /compare:toy -->\n"
    )
    short = marked_text(report, "compare:toy:summary")
    assert len(short) < len(marked_text(report, "compare:toy"))
    # Filling in a page is no look.
    assert History.of(files / "results.parquet").looks == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "none.csv", "--plan", "plan.yaml"], "be a file"),
        (["report", "results.parquet", "--plan", "none.yaml"], "the plan must be a file"),
        (["report", "results.parquet", "--plan", "plan.yaml", "--into", "x.md"], "together"),
    ],
)
def test_mistakes_end_with_their_message(files, monkeypatch, capsys, words, message):
    monkeypatch.chdir(files)
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_unblinding_is_remembered(files):
    plan = make_plan(blind=True)
    path = files / "results.parquet"
    assert "famo" not in write_report(path, plan)[0].read_text()
    assert History.of(path).unblinded is None
    assert "famo" in write_report(path, plan, unblind=True)[0].read_text()
    assert History.of(path).unblinded == 5


def test_power_is_told_before_the_run(files, capsys):
    main(["power", "--plan", str(files / "plan.yaml")])
    assert "a difference of 1.68 standard deviations" in capsys.readouterr().out
    assert "nothing" in power_lines(make_plan(seeds=1))[0]
