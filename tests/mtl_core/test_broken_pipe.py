"""Printing to a reader that has left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_core.broken_pipe import quiet_broken_pipe

ROOT = Path(__file__).parents[2]


def run_unread(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a standard output that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [sys.executable, *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write)


@pytest.mark.parametrize("ending", ["", "; sys.exit(3)", "; sys.stdout.flush()"])
def test_nothing_is_said_where_nobody_reads(ending):
    body = f"    import sys; print('much'){ending}"
    code = f"from mtl_core.broken_pipe import *\nwith quiet_broken_pipe():\n{body}"
    ended = run_unread("-c", code)
    assert (ended.returncode, ended.stderr) == (1, "")


REPORT = (
    "mtl_core.stats report docs/results/compare_digits.csv "
    "--plan configs/compare/digits_balancers.yaml --out {out}"
)


@pytest.mark.parametrize("command", ["export --help", "mtl_core.balancing", REPORT])
def test_commands_that_print_end_quietly(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    ended = run_unread("-m", *command.format(out=tmp_path).split())
    assert (ended.returncode, ended.stderr) == (1, "")


def test_other_endings_are_left_alone(capsys):
    with quiet_broken_pipe():
        print("read")
    assert capsys.readouterr().out == "read\n"
    with pytest.raises(SystemExit, match="3"), quiet_broken_pipe():
        sys.exit(3)
    with pytest.raises(ValueError, match="own"), quiet_broken_pipe():
        raise ValueError("own")
