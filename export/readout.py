"""Predictions as pictures and as words, by what ``labels.json`` says of their task."""

from collections.abc import Mapping
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
    planes = values.astype(np.float32, copy=False)
    planes = planes if planes.ndim == 3 else planes[None]
    unknown = np.asarray(np.isnan(planes).any(0))
    kind = readout.get("kind")
    if kind == "segmentation":
        return draw_classes(readout, np.where(unknown, UNKNOWN_CLASS, planes.argmax(0)))
    if kind == "normals":
        picture = ((planes.transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255)
        unknown |= ~planes.any(0)
        return _stripe(np.nan_to_num(picture).astype(np.uint8), unknown)
    plane = planes[0]
    if kind == "depth":
        unknown |= ~(plane > 0)
        return _stripe(_depth_colours(_rescaled(plane, ~unknown)), unknown)
    level = plane if kind in ("boundary", "saliency") else _rescaled(plane, ~unknown)
    grey = (np.nan_to_num(level) * 255).round().clip(0, 255).astype(np.uint8)
    return _stripe(np.repeat(grey[..., None], 3, 2), unknown)


def draw_classes(readout: Readout, classes: Array) -> Picture:
    """Classes (H, W) in their colours; where nothing is known (`UNKNOWN_CLASS`), stripes."""
    unknown = np.asarray(classes == UNKNOWN_CLASS)
    colours = np.array(readout["palette"], np.uint8)
    return _stripe(colours[np.where(unknown, 0, classes)], unknown)


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
        row[f"{prefix}/mean"] = float(np.nanmean(channel))
        row[f"{prefix}/min"] = float(np.nanmin(channel))
        row[f"{prefix}/max"] = float(np.nanmax(channel))
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


def _rescaled(plane: Array, known: Array) -> Array:
    """Values in [0, 1] from the smallest to the largest known one."""
    if not known.any():
        return np.zeros_like(plane)
    low, high = float(plane[known].min()), float(plane[known].max())
    return np.clip((np.where(known, plane, low) - low) / max(high - low, 1e-12), 0, 1)


def _depth_colours(level: Array) -> Picture:
    place = np.linspace(0, 1, len(_DEPTH))
    channels = [np.interp(level, place, column) for column in zip(*_DEPTH, strict=True)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _stripe(picture: Picture, where: Array) -> Picture:
    """Diagonal stripes on the pixels of a mask; their width follows the picture's size."""
    if not where.any():
        return picture
    row, column = np.indices(where.shape)
    width = max(2, min(where.shape) // 24)
    stripe = np.where(((row + column) // width % 2)[..., None], *STRIPES).astype(np.uint8)
    return np.where(where[..., None], stripe, picture)
