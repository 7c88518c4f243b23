from dataclasses import replace

import pytest

from mtl_core.errors import ArgumentError
from mtl_tabular.bench import Contender, Plan
from mtl_tabular.bench.table import append, mend, read
from mtl_tabular.networks import SharedBottom

RUN = next(Plan(networks={"a, b": Contender(network=SharedBottom)}).runs())
SCORE = {"task": "task1", "metric": "rmse", "value": "0.25"}
END = {"status": "ok", "seconds": "1.5", "parameters": 7}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.csv"


def test_what_was_written_is_read(path):
    assert read(path) == {}
    append(path, RUN, [SCORE, END])
    found = read(path)[RUN.digest]
    assert found.scores == {"task1": {"rmse": 0.25}}
    assert (found.reason, found.parameters, found.seconds) == ("", 7, 1.5)


def test_failures_keep_their_reason_until_a_repetition_succeeds(path):
    append(path, RUN, [{"status": "failed", "reason": 'out of "memory", twice', "seconds": "1"}])
    assert read(path)[RUN.digest].reason == 'out of "memory", twice'
    append(path, RUN, [SCORE, END])
    assert read(path)[RUN.digest].reason == ""


def test_a_machine_that_goes_down_loses_the_run_under_way_and_no_other(path):
    """Wherever the second block is cut off, the first run is there and a third can follow."""
    append(path, RUN, [SCORE, END])
    whole = path.read_bytes()
    second, third = (replace(RUN, digest=name) for name in ("second", "third"))
    append(path, second, [SCORE, {**SCORE, "metric": "mae"}, END])
    both = path.read_bytes()
    for cut in range(len(whole), len(both), 2):
        path.write_bytes(both[:cut])
        mend(path)
        append(path, third, [SCORE, END])
        found = read(path)
        assert found.keys() - {"second"} == {RUN.digest, "third"}, both[len(whole) : cut]
        if "second" in found:  # nothing but the seconds is cut off
            assert found["second"].scores == {"task1": {"rmse": 0.25, "mae": 0.25}}
        assert found["third"].scores == {"task1": {"rmse": 0.25}}
        assert ("second" in found) == (cut >= len(both) - len("1.5\n"))
        assert path.read_bytes().startswith(whole)


def test_another_table_is_refused(path):
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ArgumentError, match="have the columns"):
        read(path)
