import pytest
import torch

from mtl_core.callbacks.routing_figures import draw_overlaps, draw_shares, evenly


def test_a_panel_a_task_with_layers_of_several_sizes():
    shares = {"one": torch.full((4, 3), 1 / 3), "two": torch.full((4, 4), 0.25)}
    shares["two"][1] = torch.nan
    figure = draw_shares(shares, ("a", "b", "c", "d"), label="share")
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["a", "b", "c", "d"]
    assert all(axes.images[0].get_array().shape == (2, 4) for axes in panels)
    held = panels[0].images[0].get_array()
    assert held.mask.tolist() == [[False, False, False, True], [False] * 4]
    assert panels[1].images[0].get_array().mask[1].all()
    for axes in panels:
        assert axes.images[0].get_clim() == (0, pytest.approx(1 / 3))
    assert "share" in [axes.get_ylabel() for axes in figure.axes]
    texts = [t.get_text() for t in panels[0].texts]
    assert texts == [".33"] * 3 + [".25"] * 4


def test_many_experts_have_no_numbers():
    figure = draw_shares({"one": torch.rand(2, 64)}, ("a", "b"), label="share")
    assert not figure.axes[0].texts
    figure.canvas.draw()


def test_overlaps_show_the_mean_and_some_layers():
    matrices = {str(i): torch.full((2, 2), i / 10) for i in range(8)}
    figure = draw_overlaps(matrices, ("a", "b"), panels=3)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["mean over layers", "1", "4", "7"]
    assert panels[0].images[0].get_array()[0, 0] == pytest.approx(0.35)
    single = draw_overlaps({"0": torch.eye(2)}, ("a", "b"))
    assert [axes.get_title() for axes in single.axes if axes.images] == ["0"]
    figure.canvas.draw()


def test_evenly_spread_names_end_with_the_last():
    names = [str(i) for i in range(12)]
    assert evenly(names, 20) == names
    assert evenly(names, 1) == ["11"]
    assert evenly(names, 4) == ["2", "5", "8", "11"]
    assert len(set(evenly(names, 7))) == 7
