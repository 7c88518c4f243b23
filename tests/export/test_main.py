"""`export.__main__`: verbs are found lazily, and errors become exit codes."""

import sys
import types

import pytest

from export import __main__ as command
from mtl_core.errors import ArgumentError


@pytest.fixture
def calls(monkeypatch):
    """Every verb replaced by one that records its words."""
    found = []

    def main(words):
        found.append(list(words))
        if words == ["raise"]:
            raise ArgumentError("x", "be right", "wrong")
        return 1 if words == ["fail"] else None

    module = types.ModuleType("fake_verb")
    module.main = main
    monkeypatch.setitem(sys.modules, "fake_verb", module)
    monkeypatch.setattr(command, "VERBS", dict.fromkeys(command.VERBS, "fake_verb"))
    return found


def test_exit_codes(calls, capsys):
    assert command.main(["check", "dir"]) == 0
    assert command.main(["check", "fail"]) == 1
    assert command.main(["check", "raise"]) == 2
    assert "error: x must be right, found 'wrong'." in capsys.readouterr().err
    assert calls == [["dir"], ["fail"], ["raise"]]


def test_a_path_without_a_verb_is_built(calls):
    assert command.main(["runs/a.ckpt", "--out", "x"]) == 0
    assert command.main(["folder", "--out", "x"]) == 0
    assert calls == [["runs/a.ckpt", "--out", "x"], ["folder", "--out", "x"]]


def test_a_misspelt_verb_is_answered_with_the_nearest(calls, capsys):
    assert command.main(["biuld"]) == 2
    assert "Did you mean build?" in capsys.readouterr().err
    assert calls == []


def test_help_and_nothing(capsys):
    assert command.main(["--help"]) == 0
    assert command.main([]) == 2
    out = capsys.readouterr().out
    assert all(out.count(f"\n  {verb} ") == 2 for verb in command.VERBS)


def test_words_default_to_those_of_the_process(calls, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mtl-export", "inspect", "dir"])
    assert command.main() == 0
    assert calls == [["dir"]]
