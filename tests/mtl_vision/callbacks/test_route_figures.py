import numpy as np
import pytest

from mtl_core.errors import ArgumentError
from mtl_vision.callbacks.route_figures import draw_routes, overlay, patch_grid

SIZE = (8, 12)


def test_a_row_an_image_and_task_and_a_column_a_layer():
    images = [np.full((*SIZE, 3), 200, np.uint8)] * 2
    one = {"a": {"semseg": np.zeros((4, 6), int), "depth": np.ones((4, 6), int)}}
    two = {"a": {"semseg": np.zeros((4, 6), int)}, "b": {"depth": np.ones((2, 3), int)}}
    figure = draw_routes(images, [one, two], num_experts=3)
    assert len(figure.axes) == 4 * 3
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["semseg", "depth"] * 2
    assert [axes.get_title() for axes in figure.axes[:3]] == ["", "a", "b"]
    assert sum(bool(axes.images) for axes in figure.axes) == 4 + 4
    with pytest.raises(ArgumentError, match="images"):
        draw_routes([], [], num_experts=3)


def test_overlay_colours_whole_patches():
    picture = np.full((8, 12, 3), 100, np.uint8)
    experts = np.arange(6).reshape(2, 3)
    colours = np.array([[250, 0, 0]] * 5 + [[0, 0, 250]], np.uint8)
    found = overlay(picture, experts, colours, strength=1.0)
    assert (found[:4] == [250, 0, 0]).all()
    assert (found[4:, 8:] == [0, 0, 250]).all()
    assert (found[4:, :8] == [250, 0, 0]).all()
    assert (overlay(picture, experts, colours, strength=0.0) == 100).all()


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [
        (196, (224, 224), (14, 14)),
        (197, (224, 224), (14, 14)),
        (201, (224, 224), (14, 14)),
        (24, (64, 96), (4, 6)),
        (1025, (512, 512), (32, 32)),
        (50, (8, 8), None),
        (70, (8, 8), (8, 8)),
    ],
)
def test_grid_of_patches(tokens, size, grid):
    assert patch_grid(tokens, *size) == grid
