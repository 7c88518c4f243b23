import math

import pytest
import torch

from mtl_core.callbacks.gradient_figures import (
    colours,
    draw_conflicts,
    draw_trajectories,
    pair_matrix,
)
from mtl_core.callbacks.gradient_history import GradientHistory


def history_of(angles, *, weights=None, entries=("a", "b")):
    history = GradientHistory(entries)
    for i, angle in enumerate(angles):
        gramian = torch.eye(len(entries), dtype=torch.float64)
        gramian[0, 1] = gramian[1, 0] = math.cos(angle)
        history.add(10 * i, entries, gramian, weights or {})
    return history


def test_lengths_and_weights_have_a_line_an_entry():
    figure = draw_trajectories(history_of([1.0, 2.0], weights={"a": 0.25, "b": 0.75}))
    norms, weights = figure.axes
    assert [line.get_xdata().tolist() for line in norms.lines] == [[0, 10], [0, 10]]
    assert [line.get_ydata().tolist() for line in weights.lines] == [[0.25] * 2, [0.75] * 2]


def test_without_a_balancer_only_lengths():
    assert len(draw_trajectories(history_of([1.0])).axes) == 1


def test_conflicts_by_stage_and_over_time():
    angles = [0.0, 0.0, math.pi, math.pi]
    figure = draw_conflicts(history_of(angles), stages=2)
    early, late, *_, share = figure.axes
    assert early.images[0].get_array()[0, 1] == pytest.approx(1)
    assert late.images[0].get_array()[0, 1] == pytest.approx(-1)
    assert late.images[0].get_array()[0, 0] == 1
    line = next(item for item in share.lines if item.get_label() == "pairs in conflict")
    assert line.get_ydata().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("records", [1, 2, 40])
def test_any_number_of_records(records, tmp_path):
    figure = draw_conflicts(history_of([1.0] * records))
    assert len([axes for axes in figure.axes if axes.images]) == min(4, records)
    figure.savefig(tmp_path / "x.png")


def test_many_entries_and_absent_pairs_are_drawn(tmp_path):
    entries = tuple(f"task{i}" for i in range(30))
    history = history_of([1.0, 2.0], entries=entries)
    history.add(20, entries[:1], torch.eye(30, dtype=torch.float64), {})
    draw_conflicts(history).savefig(tmp_path / "c.png")
    draw_trajectories(history).savefig(tmp_path / "t.png")
    assert len(set(colours(30))) == 30
    assert colours(2) != colours(30)[:2]


def test_matrix_is_symmetric():
    history = GradientHistory(["a", "b", "c"])
    found = pair_matrix(history, torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(found, torch.tensor([[1, 0.1, 0.2], [0.1, 1, 0.3], [0.2, 0.3, 1]]))
