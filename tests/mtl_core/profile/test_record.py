import csv
import json

import pytest

from mtl_core.profile import Cost, Profile
from mtl_core.profile.record import total


def make(**others) -> Profile:
    costs = {"a": Cost(30.0, 3, 12, 100, seconds=1.0), "b": Cost(50.0, 5, 20, 70, seconds=2.0)}
    return Profile(
        network="Net",
        tasks=("a", "b"),
        inputs={"inputs": (1, 3)},
        batch=1,
        device="cpu",
        threads=1,
        parameters=9,
        single=costs,
        together=Cost(60.0, 8, 32, 150, seconds=2.5),
        **others,
    )


def test_savings_say_what_is_compared():
    profile = make()
    assert profile.saving("a") == {"all tasks": 0.5}
    assert profile.saving() == {"a call a task": 1 - 60 / 80}
    dear = Cost(20.0, 1, 4, 1)
    whole = make(others={"cheap": dear}, dense={"a": Cost(120.0, 3, 12, 1)}, separate={"a": dear})
    assert whole.saving("a") == {
        "all tasks": 0.5,
        "a network of its own": -0.5,
        "all experts": 0.75,
        "cheap": -0.5,
    }


def test_calls_after_each_other_add_up_but_their_peak():
    profile = make()
    both = profile.one_by_one()
    assert (both.macs, both.seconds, both.peak_bytes) == (80, 3, 100)
    assert both.parameters == profile.together.parameters, "weights are shared"
    apart = total(profile.single.values())
    assert (apart.parameters, apart.weight_bytes) == (8, 32)
    assert total([Cost(1, 1, 1, 1), *profile.single.values()]).seconds is None


def test_files_hold_every_call():
    profile = make(separate={"a": Cost(30.0, 3, 12, 100)})
    content = json.loads(json.dumps(profile.as_dict()))
    assert content["single"]["a"]["macs"] == 30
    assert content["saving"]["a"]["all tasks"] == 0.5
    rows = list(csv.DictReader(profile.as_csv().splitlines()))
    assert [(r["group"], r["call"]) for r in rows] == [(g, n) for g, n, _ in profile.calls()]
    assert float(rows[0]["macs_ratio"]) == pytest.approx(0.5)
    assert rows[-1]["seconds"] == ""
