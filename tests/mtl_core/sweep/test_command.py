"""The verb ``sweep``: run, show, best, command, and its mistakes.

`mtl_core.sweep.command` and `mtl_core.sweep.best`.
"""

import json
import shlex
import subprocess
import sys

import pytest
import yaml

from mtl_core.sweep.command import main
from mtl_core.sweep.study import Sweep

WORDS = ["--space", "space.yaml", "--out", "out", "-n", "3"]
PLAN = {
    "objectives": {"score": {"value": "val/a/score", "direction": "maximize"}},
    "sampler": "random",
    "space": {"x": {"low": 0.0, "high": 1.0}},
}


@pytest.fixture(autouse=True)
def folder(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(PLAN))
    return tmp_path


def test_run_show_best_and_command(program, folder, capsys):
    main(program, WORDS)
    said = capsys.readouterr().out
    assert "3 of 3 trials ended, 3 complete" in said
    assert "sweep best out" in said
    assert said.count("trial ") >= 3

    main(program, WORDS)  # nothing is left to do
    assert len(list((folder / "out" / "trials").iterdir())) == 3

    main(program, ["show", "out"])
    said = capsys.readouterr().out
    assert "history.png" in said
    assert (folder / "out" / "figures" / "parallel.png").is_file()

    main(program, ["best", "out"])
    sweep = Sweep.open(folder / "out")
    best = max(sweep.trials(), key=lambda trial: trial.value)
    text = (folder / "out" / "best.yaml").read_text()
    assert text.startswith(f"# Trial {best.number} of sweep out: score = {best.value:.6g}.")
    assert f"--x={best.params['x']}" in text  # the toy prints its words
    assert "default_root_dir" not in text

    main(program, ["best", "out", "--trial", "1", "--to", "one.yaml"])
    assert (folder / "one.yaml").read_text().startswith("# Trial 1 ")


def test_a_trial_is_a_plain_command(program, folder, capsys):
    main(program, WORDS)
    capsys.readouterr()
    main(program, ["command", "out"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    main(program, ["command", "out", "--trial", "2"])
    assert capsys.readouterr().out.splitlines() == lines[2:]
    words = shlex.split(lines[2])
    assert words[:4] == ["python", "-m", "sweep_program", "fit"]
    progress = folder / "out" / "trials" / "0002" / "seed_0" / "progress.jsonl"
    before = progress.read_text()
    progress.unlink()
    code = "import sys, sweep_program; sweep_program.main(sys.argv[1:])"
    path = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code, *words[3:]], check=True, env=path, cwd=folder)
    assert progress.read_text() == before


def test_more_trials_may_be_wanted_later(program, folder):
    main(program, WORDS)
    main(program, [*WORDS[:-1], "5"])
    assert len(Sweep.open(folder / "out").trials()) == 5


def test_storage_by_url(program, folder):
    main(program, [*WORDS, "--storage", f"sqlite:///{folder}/s.db", "--name", "named"])
    sweep = Sweep.open(folder / "out")
    assert (sweep.study.study_name, len(sweep.trials())) == ("named", 3)
    assert not (folder / "out" / "journal.log").exists()


def test_interpreter_of_its_own_for_each_trial(program, folder):
    main(program, [*WORDS[:-1], "1", "--fresh"])
    (trial,) = Sweep.open(folder / "out").trials()
    assert trial.user_attrs["outcome"]["status"] == "finished"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--space", "none.yaml"], "--space must name a file"),
        ([*WORDS[:-1], "0"], "--trials must be at least 1"),
        ([*WORDS, "--jobs", "0"], "--jobs must be at least 1"),
        ([*WORDS, "-c", "none.yaml"], "-c must name a file"),
        (["show", "nowhere"], "must hold sweep.json"),
        (["best", "nowhere"], "must hold sweep.json"),
    ],
)
def test_mistakes_end_with_their_message(program, words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(program, words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(program, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit):
        main(program, WORDS)
    assert "pip install 'mtl-suite[sweep]'" in capsys.readouterr().err


def test_number_of_a_trial_has_to_exist(program, folder, capsys):
    main(program, [*WORDS[:-1], "1"])
    with pytest.raises(SystemExit):
        main(program, ["best", "out", "--trial", "7"])
    assert "one of the 1 trials" in capsys.readouterr().err
    assert json.loads((folder / "out" / "sweep.json").read_text())["name"] == "out"
