"""Experts of patches in colours over images."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtl_core.callbacks.curves import GREY
from mtl_core.errors import ArgumentError
from mtl_core.types import TaskName
from mtl_vision.palette import palette
from mtl_vision.visualize import Array, Picture

_EXTRA = 16  # most tokens of a sequence that are no patches: class and register tokens

Routes: TypeAlias = Mapping[str, Mapping[TaskName, Array]]
"""The expert with the largest weight at every patch, (h, w), by layer and task."""


def patch_grid(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of the patches in a sequence, of which a few more may be class tokens.

    Args:
        tokens: length of the sequence.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        The finest grid of square patches that the sequence has room for, None where more than 16
        tokens would be left over.

    >>> patch_grid(197, 224, 224)
    (14, 14)
    """
    for side in range(1, min(height, width) + 1):
        rows, columns = height // side, width // side
        if rows * columns <= tokens:
            return (rows, columns) if tokens - rows * columns <= _EXTRA else None
    return None


def draw_routes(images: Sequence[Picture], routes: Sequence[Routes], *, num_experts: int) -> Figure:
    """A row an image and task, with the image and a column a layer.

    Args:
        images: (H, W, 3) uint8.
        routes: of every image.
        num_experts: largest number of experts of a layer.

    Returns:
        The figure, not tied to any global state of matplotlib.

    Raises:
        ArgumentError: there is no image, or no layer.
    """
    layers = list(dict.fromkeys(name for held in routes for name in held))
    tasks = list(dict.fromkeys(t for held in routes for maps in held.values() for t in maps))
    if not images or not layers:
        raise ArgumentError("images and routes", "hold one image and layer at least", len(images))
    height, width = images[0].shape[:2]
    panel = 1.35
    rows, columns = len(images) * len(tasks), 1 + len(layers)
    figure = Figure(
        figsize=(columns * panel * min(width / height, 2) + 0.4, rows * panel + 1.1),
        layout="constrained",
        dpi=110,
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    colours = np.array(palette(num_experts), np.uint8)
    for row in range(rows):
        number, task = row // len(tasks), tasks[row % len(tasks)]
        picture, held = images[number], routes[number]
        grid[row, 0].imshow(picture)
        grid[row, 0].set_ylabel(task, fontsize=8, color=GREY)
        for axes, layer in zip(grid[row, 1:], layers, strict=True):
            axes.set_facecolor("#F3F3F3")
            if task in held.get(layer, {}):
                axes.imshow(overlay(picture, held[layer][task], colours))
            if row == 0:
                axes.set_title(layer, fontsize=8, color=GREY)
        for axes in grid[row]:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    patches = [Patch(color=colour / 255) for colour in colours]
    figure.legend(
        patches,
        [str(i) for i in range(num_experts)],
        loc="outside lower center",
        ncols=max(1, min(num_experts, int(figure.get_figwidth() / 0.5))),
        fontsize=7,
        frameon=False,
        handlelength=1.0,
        title="expert with the largest weight",
        title_fontsize=8,
    )
    return figure


def overlay(picture: Picture, experts: Array, colours: Array, *, strength: float = 0.6) -> Picture:
    """The image in grey with every patch in its expert's colour.

    Args:
        picture: (H, W, 3) uint8.
        experts: (h, w) indices.
        colours: (E, 3) uint8.
        strength: of the colours, in [0, 1].
    """
    height, width = picture.shape[:2]
    y = np.minimum(np.arange(height) * len(experts) // height, len(experts) - 1)
    x = np.minimum(np.arange(width) * experts.shape[1] // width, experts.shape[1] - 1)
    grey = picture.mean(2, keepdims=True)
    mixed: Array = (1 - strength) * grey + strength * colours[experts[y[:, None], x[None]]]
    coloured: Picture = mixed.round().astype(np.uint8)
    return coloured
