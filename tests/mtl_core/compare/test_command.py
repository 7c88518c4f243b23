"""`mtl_core.compare.command` and ``python -m mtl_core`` (`mtl_core.__main__`)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtl_core.__main__ import main
from mtl_core.stats.table import Table

ROOT = Path(__file__).parents[3]


def test_a_plan_is_run_and_reported(plan_file, tmp_path, capsys):
    path = plan_file()
    main(["compare", "-c", str(path), "--out", str(tmp_path / "out"), "--threads", "1"])
    out = capsys.readouterr().out
    assert "2 seeds show, with 80 % power" in out
    assert "8 of 8: block 2" in out
    report = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "famo" in report
    assert "Δm" in report
    assert "CPU seconds a run" in report
    for name in ("report.html", "report.tex", "figure_left.png", "figure_all.png"):
        assert (tmp_path / "out" / "report" / name).is_file()


def test_a_blind_plan_names_no_method_until_unblinded(plan_file, tmp_path, capsys):
    path = plan_file(blind=True)
    words = ["compare", "-c", str(path), "--out", str(tmp_path / "out"), "--threads", "1"]
    main(words)
    shown = capsys.readouterr().out
    shown += "".join(p.read_text() for p in (tmp_path / "out" / "report").glob("report.*"))
    shown += (tmp_path / "out" / "runs.csv").read_text()
    shown += " ".join(p.name for p in (tmp_path / "out" / "runs").rglob("*"))
    assert "famo" not in shown
    assert "method 1" in shown
    main([*words, "--unblind"])
    assert "famo" in (tmp_path / "out" / "report" / "report.md").read_text()


def test_without_any_score_there_is_no_report(plan_file, tmp_path, capsys):
    methods = {"sum": ["--mode=crash"], "famo": ["--mode=crash"]}
    path = plan_file(methods=methods, seeds=1, single=False, run={"profile": False})
    main(["compare", "-c", str(path), "--out", str(tmp_path / "out"), "--threads", "1"])
    assert "No run has a score" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "usage: python -m mtl_core compare"),
        (["--help"], 0, "usage"),
        (["fit"], 2, "usage"),
        (["compare", "-c", "none.yaml"], 2, "the plan must be a file"),
    ],
)
def test_mistakes_end_with_their_message(words, status, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == status
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_undisturbed(
    plan_file, program, tmp_path, monkeypatch
):
    """Once with SIGTERM, which hands the run back in good order, once with SIGKILL."""
    sleep = {"words": ["-c", str(tmp_path / "base.yaml"), "--sleep=0.2"], "profile": False}
    path = plan_file(seeds=2, run={"program": "compare_program", **sleep})
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{program}"}

    def start(name: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "mtl_core", "compare", "-c", str(path), "--threads", "1"]
        with (tmp_path / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [*line, "--out", name], cwd=tmp_path, env=environment, stdout=log, stderr=log
            )

    def lines(name: str) -> int:
        found = tmp_path / name / "runs.csv"
        return len(found.read_text().splitlines()) if found.is_file() else 0

    for at, number in ((3, signal.SIGTERM), (6, signal.SIGKILL)):
        process = start("broken")
        until = time.monotonic() + 60
        while lines("broken") < at and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        process.wait(30)
        assert process.returncode == (130 if number == signal.SIGTERM else -9)
        assert at <= lines("broken") < 9
    monkeypatch.chdir(tmp_path)
    for name in ("broken", "whole"):
        main(["compare", "-c", str(path), "--threads", "1", "--out", name])
    one, two = (
        {
            (row.method, row.task, row.metric, row.seed, row.value)
            for row in Table.read(tmp_path / name / "results.csv").rows
            if not row.metric.startswith("cost/")
        }
        for name in ("broken", "whole")
    )
    assert one == two
    assert len(Table.read(tmp_path / "broken" / "results.csv").rows) == len(
        Table.read(tmp_path / "whole" / "results.csv").rows
    )
