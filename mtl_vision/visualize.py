"""Pictures and words for targets and predictions, by type of task."""

from functools import singledispatch
from typing import Any, NamedTuple, TypeAlias

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError
from mtl_core.tasks import Classification, MultiLabel, Regression, Task
from mtl_vision.palette import palette
from mtl_vision.tasks import (
    IGNORE,
    BoundaryDetection,
    DenseTask,
    DepthEstimation,
    SaliencyDetection,
    SemanticSegmentation,
    SurfaceNormals,
)

Picture: TypeAlias = NDArray[np.uint8]
Array: TypeAlias = NDArray[Any]

DEPTH_COLOURS = "magma_r"
"""Matplotlib's colour map for depth: near is bright, far is dark."""

STRIPES = ((222, 216, 208), (178, 170, 160))
"""Colours of the stripes that mark unlabelled pixels."""


def to_array(values: Any) -> Array:
    """NumPy array of a tensor on any device, or of anything array-like."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    return np.asarray(values)


@singledispatch
def draw(task: Task, array: Any, *, limits: tuple[float, float] | None = None) -> Picture:
    """Draw one sample's target or activated prediction.

    Unlabelled pixels of a target are striped. A task type without a drawing of its own is shown in
    grey: its first channel, or the target itself. Further types are added by ``@draw.register``.

    Args:
        task: a dense task.
        array: target (H, W) or (3, H, W), or activated prediction (H, W) or (C, H, W).
        limits: values at both ends of the colour scale, for tasks that have one (depth, and types
            without a drawing of their own); default: smallest and largest value of `array`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ArgumentError: the task has no maps, or `array` is no map.
    """
    values = to_array(array)
    if not isinstance(task, DenseTask):
        raise ArgumentError("task", "be dense to be drawn", type(task).__name__)
    values = _plane(values[0] if values.ndim == 3 else values)
    return _grey(_rescale(values.astype(np.float64), limits))


@draw.register
def _(
    task: SemanticSegmentation, array: Any, *, limits: tuple[float, float] | None = None
) -> Picture:
    """Each class in its colour; probabilities by their largest."""
    values = to_array(array)
    labels = values.argmax(0) if values.ndim == 3 else _plane(values)
    colours = np.zeros((IGNORE + 1, 3), np.uint8)
    colours[: task.num_classes] = class_colours(task)
    return _stripe(colours[labels], labels == IGNORE)


@draw.register
def _(task: DepthEstimation, array: Any, *, limits: tuple[float, float] | None = None) -> Picture:
    """Bright is near, dark is far; depth 0 is unknown."""
    values = _plane(to_array(array)).astype(np.float64)
    known = values > 0
    scaled = _rescale(values, limits or depth_limits(values))
    colours = matplotlib.colormaps[DEPTH_COLOURS](scaled, bytes=True)[..., :3]
    return _stripe(colours, ~known)


@draw.register
def _(task: SurfaceNormals, array: Any, *, limits: tuple[float, float] | None = None) -> Picture:
    """Red, green and blue are ``(n + 1) / 2`` of the three components."""
    values = to_array(array)
    if values.ndim != 3 or values.shape[0] != 3:
        raise ArgumentError("array", "be normals (3, H, W)", f"shape {values.shape}")
    normals = values.transpose(1, 2, 0).astype(np.float64)
    colours = ((normals + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    return _stripe(colours, ~normals.any(-1))


@draw.register(BoundaryDetection)
@draw.register(SaliencyDetection)
def _(task: DenseTask, array: Any, *, limits: tuple[float, float] | None = None) -> Picture:
    """White is 1, black is 0."""
    values = _plane(to_array(array))
    if np.issubdtype(values.dtype, np.floating):
        return _grey(values)
    return _stripe(_grey(values == 1), values == IGNORE)


def class_colours(task: SemanticSegmentation) -> Picture:
    """Colours of the K classes, (K, 3): the task's own, else of `palette`."""
    return np.array(task.palette or palette(task.num_classes), np.uint8)


def depth_limits(depth: Array) -> tuple[float, float]:
    """Smallest and largest known depth; (0, 1) if none is known."""
    known = depth[depth > 0]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _plane(values: Array) -> Array:
    if values.ndim != 2:
        raise ArgumentError("array", "be a map (H, W)", f"shape {values.shape}")
    return values


def _rescale(values: Array, limits: tuple[float, float] | None) -> Array:
    low, high = limits or (float(values.min()), float(values.max()))
    return ((values - low) / max(high - low, 1e-12)).clip(0, 1)


def _grey(values: Array) -> Picture:
    level = (values.astype(np.float64) * 255).round().clip(0, 255).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=2)


def _stripe(picture: Picture, where: Any) -> Picture:
    """Diagonal stripes on the pixels of a mask; their width follows the picture's size."""
    row, column = np.indices(where.shape)
    width = max(2, min(where.shape) // 24)
    stripe = np.where(((row + column) // width % 2)[..., None], *STRIPES).astype(np.uint8)
    return np.where(where[..., None], stripe, picture)


class Line(NamedTuple):
    """A line of words about one sample's prediction.

    Args:
        text: the words.
        right: whether the prediction is right; None where that is no question.
    """

    text: str
    right: bool | None = None


@singledispatch
def describe(task: Task, target: Any, prediction: Any) -> list[Line]:
    """Put one sample's activated prediction of a task without maps into words.

    Further types are added by ``@describe.register``.

    Args:
        task: the task.
        target: its target, (...); None if unlabelled.
        prediction: activated, (C, ...).

    Returns:
        A few lines, the most important first.
    """
    lines = [Line(f"predicted {_numbers(to_array(prediction))}")]
    return lines if target is None else [Line(f"true {_numbers(to_array(target))}"), *lines]


@describe.register
def _(task: Classification, target: Any, prediction: Any) -> list[Line]:
    """The true class, the predicted one, and its probability."""
    probability = to_array(prediction)
    best = int(probability.argmax())
    words = f"{_class_name(task, best)}  {probability[best]:.0%}"
    if target is None:
        return [Line(words)]
    truth = int(to_array(target))
    if truth == best:
        return [Line(words, True)]
    return [Line(words, False), Line(f"true: {_class_name(task, truth)}")]


@describe.register
def _(task: MultiLabel, target: Any, prediction: Any) -> list[Line]:
    """Labels that are predicted (probability above one half) or true, mistakes first."""
    probability = to_array(prediction)
    truth = np.full(task.num_labels, -1) if target is None else to_array(target)
    lines = []
    for k in np.argsort(-probability):
        if probability[k] > 0.5 or truth[k] == 1:
            right = None if truth[k] < 0 else bool((probability[k] > 0.5) == (truth[k] == 1))
            lines.append(Line(f"{_class_name(task, int(k))}  {probability[k]:.0%}", right))
    lines.sort(key=lambda line: line.right is not False)
    return lines or [Line("no label", None if target is None else True)]


@describe.register
def _(task: Regression, target: Any, prediction: Any) -> list[Line]:
    """The predicted value and the true one."""
    lines = [Line(_numbers(to_array(prediction)))]
    return lines if target is None else [*lines, Line(f"true: {_numbers(to_array(target))}")]


def _class_name(task: Classification | MultiLabel, index: int) -> str:
    return task.class_names[index] if task.class_names else f"class {index}"


def _numbers(values: Array) -> str:
    flat = values.astype(np.float64).ravel()
    return ", ".join(f"{v:.3g}" for v in flat[:4]) + (", ..." if len(flat) > 4 else "")
