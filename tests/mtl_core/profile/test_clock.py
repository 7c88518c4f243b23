import time

import pytest

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.profile import clock


def test_every_round_runs_every_function_once():
    calls = []
    names = ["a", "b", "c"]
    found = clock({n: lambda n=n: calls.append(n) for n in names}, "a", repeats=6, warmup=2)
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(rounds) == 8
    assert all(sorted(r) == names for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1, "in orders drawn anew"
    assert set(found) == set(names)


def test_waiting_is_wall_time_and_no_work():
    def work():
        sum(i * i for i in range(200_000))

    found = clock({"wait": lambda: time.sleep(0.03), "work": work}, "work", repeats=3, warmup=0)
    assert found["work"].ratio == 1
    assert found["wait"].seconds >= 0.03
    assert found["wait"].cpu_seconds < found["work"].cpu_seconds
    assert found["wait"].ratio < 1


def test_mistakes():
    with pytest.raises(ArgumentError, match="repeats"):
        clock({"a": int}, "a", repeats=0)
    with pytest.raises(UnknownNameError, match="reference"):
        clock({"a": int}, "b", repeats=1)
