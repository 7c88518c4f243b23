import csv
import json

import pytest
import torch

from mtl_core.callbacks.routing_summary import RoutingSummary

TASKS = ("a", "b")


def make(**options) -> RoutingSummary:
    summary = RoutingSummary(TASKS, ("one", "two"), **{"decay": 0.0, **options})
    chosen = torch.tensor([[4.0, 4.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    weight = torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    summary.add("two", TASKS, chosen, weight)
    return summary


def test_equal_use_and_one_expert_are_the_ends_of_entropy():
    summary = RoutingSummary(TASKS, ("l",), decay=0.0)
    counts = torch.tensor([[5.0, 5.0, 5.0, 5.0], [0.0, 7.0, 0.0, 0.0]])
    summary.add("l", TASKS, counts, counts)
    assert summary.entropy("l").tolist() == pytest.approx([1, 0])
    assert summary.numbers()["largest"] == 1


def test_disjoint_equal_and_rare_experts():
    summary = make()
    assert summary.overlap("two").tolist() == [[1, 0], [0, 1]]
    assert summary.numbers() == {
        "entropy/a": 0.5,
        "entropy/b": 0.5,
        "overlap": 0.0,
        "largest": 0.5,
    }
    rare = torch.tensor([[96.0, 4.0], [50.0, 50.0]])
    for threshold, expected in ((0.0, 1.0), (0.5, 0.5)):
        found = RoutingSummary(TASKS, ("l",), decay=0.0, threshold=threshold)
        found.add("l", TASKS, rare, rare)
        assert found.overlap("l")[0, 1] == expected


def test_gates_count_where_all_experts_are_taken():
    assert make().shares("two")[0].tolist() == [0.5, 0.5, 0, 0]
    assert make(dense=["two"]).shares("two")[0].tolist() == [0.75, 0.25, 0, 0]


def test_averages_move_by_a_part_and_absent_tasks_keep_theirs():
    summary = make(decay=0.75)
    none = torch.zeros(2, 4)
    moved = none.clone()
    moved[0, 3] = 9.0
    summary.add("two", TASKS, moved, moved)
    assert summary.shares("two")[0].tolist() == pytest.approx([0.375, 0.375, 0, 0.25])
    assert summary.shares("two")[1].tolist() == [0, 0, 0.5, 0.5]


def test_what_is_not_known_is_left_out():
    summary = RoutingSummary(TASKS, ("one", "two"))
    assert summary.layers == ()
    assert summary.numbers() == {}
    assert summary.rows() == []
    only = torch.tensor([[1.0, 1.0]])
    summary.add("two", ("a",), only, only)
    assert summary.layers == ("two",)
    assert set(summary.numbers()) == {"entropy/a", "largest"}
    assert [row[:2] for row in summary.rows()] == [["two", "a"]]
    held = json.loads(json.dumps(summary.as_dict()))
    assert held["layers"]["two"]["chosen"] == {"a": [0.5, 0.5], "b": None}


def test_tables_hold_everything():
    summary = make()
    rows = list(csv.DictReader(summary.as_csv().splitlines()))
    assert len(rows) == 2 * 4
    assert rows[0] == {
        "layer": "two",
        "task": "a",
        "expert": "0",
        "chosen": "0.5",
        "weight": "0.75",
    }
    assert summary.rows() == [["two", "a", 0.5, 0.5, 0.0], ["two", "b", 0.5, 0.5, 0.0]]


def test_state_comes_back():
    summary, other = make(), RoutingSummary(TASKS, ("one", "two"))
    other.load_state_dict(summary.state_dict())
    assert other.as_dict() == summary.as_dict()
