"""Predictions as pictures and as words, by what ``labels.json`` says of their task."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Picture: TypeAlias = NDArray[np.uint8]
Row: TypeAlias = dict[str, "str | float | int"]
Readout: TypeAlias = Mapping[str, Any]

STRIPES = ((222, 216, 208), (178, 170, 160))
"""Colours of the stripes that mark pixels of which nothing is known."""

UNKNOWN_CLASS = -1
"""Stands in maps of classes where nothing is known."""

_DEPTH = (
    (251, 252, 191), (253, 223, 161), (254, 194, 134), (253, 164, 112), (251, 134, 96),
    (244, 104, 91), (229, 80, 99), (206, 64, 112), (181, 54, 121), (154, 45, 127),
    (129, 37, 129), (104, 27, 128), (79, 17, 123), (52, 16, 104), (27, 16, 68),
    (9, 7, 31), (0, 0, 3),
)  # fmt: skip
"""Colours from near to far, equally spaced."""


def draw(readout: Readout, values: Array) -> Picture:
    """A map as a picture (H, W, 3) uint8.

    Classes in their colours, by the likeliest; depth from near (bright) to far (dark); normals as
    ``(n + 1) / 2`` in red, green and blue; probabilities from black to white; anything else grey
    from its smallest to its largest value. Where nothing is known: stripes.

    Args:
        readout: the task's entry of ``labels.json``.
        values: activated prediction (C, H, W) or (H, W).
    """
    planes = values if values.ndim == 3 else values[None]
    limits = _limits(planes[0], positive=readout.get("kind") == "depth")
    return _by_rows(planes.shape[1:], lambda rows: _draw_rows(readout, planes[:, rows], limits))


def _draw_rows(readout: Readout, planes: Array, limits: tuple[float, float]) -> tuple[Array, Array]:
    """Some rows of a picture, and where nothing is known."""
    unknown = np.asarray(np.isnan(planes).any(0))
    kind = readout.get("kind")
    if kind == "segmentation":
        colours = np.array(readout["palette"], np.uint8)
        return colours[np.where(unknown, 0, planes.argmax(0))], unknown
    if kind == "normals":
        picture = ((planes.transpose(1, 2, 0).astype(np.float32) + 1) * 127.5).round()
        unknown |= ~planes.any(0)
        return np.nan_to_num(picture).clip(0, 255).astype(np.uint8), unknown
    plane = planes[0].astype(np.float32)
    if kind == "depth":
        unknown |= ~(plane > 0)
        return _depth_colours()[_levels(plane, limits)], unknown
    level = _levels(plane, (0.0, 1.0) if kind in ("boundary", "saliency") else limits)
    return np.repeat(level[..., None], 3, 2), unknown


def draw_classes(readout: Readout, classes: Array) -> Picture:
    """Classes (H, W) in their colours; where nothing is known (`UNKNOWN_CLASS`), stripes."""
    colours = np.array(readout["palette"], np.uint8)

    def some(rows: slice) -> tuple[Array, Array]:
        unknown = classes[rows] == UNKNOWN_CLASS
        return colours[np.where(unknown, 0, classes[rows])], np.asarray(unknown)

    return _by_rows(classes.shape, some)


def summary(name: str, readout: Readout, values: Array) -> Row:
    """What ``predictions.csv`` says of one picture's prediction.

    Args:
        name: of the task; every column starts with it.
        readout: the task's entry of ``labels.json``.
        values: activated prediction, (C,), (H, W) or (C, H, W).
    """
    classes = list(readout.get("classes", ()))
    match readout.get("kind"):
        case "segmentation":
            unknown = np.isnan(values).any(0)
            found = np.where(unknown, UNKNOWN_CLASS, values.argmax(0))
            return summary_of_classes(name, readout, found)
        case "classification" | "multiclass":
            best = int(values.argmax())
            return {name: classes[best], f"{name}/probability": float(values[best])}
        case "multilabel":
            return {f"{name}/{k}": float(v) for k, v in zip(classes, values, strict=True)}
    if values.ndim < 2:
        flat = values.reshape(-1)
        if len(flat) == 1:
            return {name: float(flat[0])}
        return {f"{name}/{i}": float(v) for i, v in enumerate(flat)}
    row: Row = {}
    channels = values if values.ndim == 3 else values[None]
    for i, channel in enumerate(channels):
        prefix = name if len(channels) == 1 else f"{name}/{i}"
        known = channel[~np.isnan(channel)] if np.isnan(channel).any() else channel
        for statistic in ("mean", "min", "max"):
            row[f"{prefix}/{statistic}"] = float(getattr(known, statistic)())
    return row


def summary_of_classes(name: str, readout: Readout, classes: Array) -> Row:
    """The most frequent class of a map (H, W) and its share of the known pixels."""
    names = list(readout["classes"])
    counts = np.bincount(classes[classes != UNKNOWN_CLASS], minlength=len(names))
    best = int(counts.argmax())
    return {name: names[best], f"{name}/share": float(counts[best] / max(counts.sum(), 1))}


def columns(name: str, readout: Readout, values: Array) -> dict[str, list[Any]]:
    """What ``predictions.csv`` says of a table's rows: the answer, then a probability a class.

    Args:
        name: of the task.
        readout: its entry of ``labels.json``.
        values: activated predictions (N, C) of N rows.
    """
    classes = [str(label) for label in readout.get("classes", ())]
    held = values if values.ndim == 2 else values.reshape(len(values), -1)
    match readout.get("kind"):
        case "binary":
            chosen = (held[:, 0] > readout.get("threshold", 0.5)).astype(int)
            held = np.concatenate([1 - held, held], 1)
        case "multiclass" | "classification":
            chosen = held.argmax(1) if len(held) else np.zeros(0, int)
        case "multilabel":
            return {f"{name}/{k}": held[:, i].tolist() for i, k in enumerate(classes)}
        case _:
            if held.shape[1] == 1:
                return {name: held[:, 0].tolist()}
            return {f"{name}/{i}": held[:, i].tolist() for i in range(held.shape[1])}
    found: dict[str, list[Any]] = {name: [classes[i] for i in chosen.tolist()]}
    return found | {f"{name}/{k}": held[:, i].tolist() for i, k in enumerate(classes)}


def short(value: str | float | int) -> str | int:
    """Six significant digits are enough for a spreadsheet."""
    return f"{value:.6g}" if isinstance(value, float) else value


def _limits(plane: Array, *, positive: bool) -> tuple[float, float]:
    """Smallest and largest value that is known, or known and positive; (0, 1) if none is."""
    known = plane[plane > 0 if positive else ~np.isnan(plane)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _levels(plane: Array, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Values between two limits as 0 to 255."""
    level = (plane - np.float32(limits[0])) * np.float32(255 / max(limits[1] - limits[0], 1e-12))
    whole: Picture = np.nan_to_num(level).round().clip(0, 255).astype(np.uint8)
    return whole


@cache
def _depth_colours() -> Picture:
    """Colours (256, 3) from near to far."""
    at = np.linspace(0, len(_DEPTH) - 1, 256)
    channels = [np.interp(at, range(len(_DEPTH)), column) for column in zip(*_DEPTH, strict=True)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _by_rows(
    size: tuple[int, ...], some: Callable[[slice], tuple[Array, Array]], rows: int = 128
) -> Picture:
    """A picture put together of pieces, with diagonal stripes where nothing is known.

    Args:
        size: height and width.
        some: colours (r, W, 3) and unknown pixels (r, W) of a slice of rows.
        rows: at most so many at once, to bound the memory that large pictures take.
    """
    picture = np.empty((size[0], size[1], 3), np.uint8)
    width = max(2, min(size[0], size[1]) // 24)
    for start in range(0, size[0], rows):
        part = slice(start, min(start + rows, size[0]))
        colours, unknown = some(part)
        picture[part] = colours
        if unknown.any():
            row, column = np.nonzero(unknown)
            stripe = np.array(STRIPES, np.uint8)[1 - (row + start + column) // width % 2]
            picture[row + start, column] = stripe
    return picture
