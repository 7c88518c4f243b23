import csv
import io

import pytest
import torch

from mtl_core.callbacks.gradient_history import FIGURES, GradientHistory, describe
from mtl_core.errors import BalancerError

ROWS = torch.tensor([[3.0, 0.0], [-1.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
GRAMIAN = ROWS @ ROWS.t()


def test_a_record_holds_lengths_cosines_and_weights():
    history = GradientHistory(["a", "b", "c"])
    record = history.add(7, ["a", "b", "c"], GRAMIAN, {"a": 2.0})
    assert record.step == 7
    assert history.pairs == [(0, 1), (0, 2), (1, 2)]
    torch.testing.assert_close(record.norms, torch.tensor([3.0, 2**0.5, 2.0]))
    torch.testing.assert_close(record.cosines, torch.tensor([-(0.5**0.5), 0.0, 0.5**0.5]))
    assert record.weights[0] == 2
    assert record.weights[1:].isnan().all()
    figures = dict(zip(FIGURES, record.figures.tolist(), strict=True))
    assert figures["conflict_rate"] == pytest.approx(1 / 3)
    assert figures["condition"] == float("inf"), "three rows in a plane"


def test_stationary_where_rows_oppose_each_other():
    rows = torch.tensor([[1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    assert describe(rows @ rows.t())["stationarity"] == pytest.approx(0, abs=1e-9)
    assert describe(torch.eye(2, dtype=torch.float64))["stationarity"] == pytest.approx(0.5)


def test_absent_entries_are_not_numbers_and_silent_ones_have_no_angle():
    gramian = GRAMIAN.clone()
    gramian[1] = gramian[:, 1] = 0
    history = GradientHistory(["a", "b", "c"])
    absent = history.add(0, ["a", "c"], gramian, {})
    silent = history.add(1, ["a", "b", "c"], gramian, {})
    assert absent.norms.isnan().tolist() == [False, True, False]
    assert silent.norms.tolist() == [3, 0, 2]
    for record in (absent, silent):
        assert record.cosines.isnan().tolist() == [True, False, True]


def test_one_entry_has_no_pairs():
    record = GradientHistory(["a"]).add(0, ["a"], torch.ones(1, 1, dtype=torch.float64), {})
    assert record.cosines.shape == (0,)
    assert record.figures.isnan().tolist() == [True] * 5 + [False]
    assert describe(torch.zeros(1, 1, dtype=torch.float64)) == {}


def test_full_histories_let_every_second_record_go():
    history = GradientHistory(["a", "b", "c"], keep=4)
    for step in range(9):
        history.add(step, ["a", "b", "c"], GRAMIAN, {})
        assert len(history.records) <= 4
        if step == 5:
            again = GradientHistory(["a", "b", "c"], keep=4)
            again.load(history.state())
            history = again
    assert history.column("step").tolist() == [0, 4, 8]


def test_csv_names_its_columns():
    history = GradientHistory(["a", "b", "c"])
    history.add(7, ["a", "b"], GRAMIAN, {"a": 2.0})
    (row,) = csv.DictReader(io.StringIO(history.as_csv()))
    assert row["step"] == "7"
    assert (row["norm/a"], row["norm/c"]) == ("3", "")
    assert (row["weight/a"], row["weight/b"]) == ("2", "")
    assert float(row["cosine/a|b"]) == pytest.approx(-(0.5**0.5), rel=1e-4)
    assert row["cosine/a|c"] == ""


def test_state_comes_back_but_not_for_others():
    history = GradientHistory(["a", "b", "c"])
    for step in range(3):
        history.add(step, ["a", "b", "c"], GRAMIAN, {"b": 1.0})
    again = GradientHistory(["a", "b", "c"])
    again.load(history.state())
    assert again.as_csv() == history.as_csv()
    empty = GradientHistory(["a", "b", "c"])
    empty.load(GradientHistory(["a", "b", "c"]).state())
    assert empty.records == []
    with pytest.raises(BalancerError, match="are of a, b, c, this run has a"):
        GradientHistory(["a"]).load(history.state())
