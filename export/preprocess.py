"""Pictures as graphs take them: the operations of ``preprocess.json`` in numpy, and their way back.

Resampling mirrors what training used: ``linear``, ``cubic`` and ``area`` are OpenCV's (without
antialiasing), ``linear_aa`` and ``cubic_aa`` Pillow's, to within one grey level (``cubic_aa``:
two).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.manifest import FolderError
from mtl_core.errors import ArgumentError, MTLError, UnreadableFileError

Array: TypeAlias = NDArray[Any]
Size: TypeAlias = tuple[int, int]
Picture: TypeAlias = str | Path | Image.Image | Array
"""An image file, a picture of Pillow, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8.
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
"""Endings, in lower case, of the files taken for images."""

MODES = ("RGB", "L", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "1")
"""Modes of Pillow with at most 8 bits a channel, which can be turned into RGB without guessing."""


class PictureError(MTLError, ValueError):
    """A picture is of a kind or size that the model does not take."""


class UnreadablePictureError(UnreadableFileError):
    """A file is no image, or a damaged one."""

    def __init__(self, path: Path | str, reason: object) -> None:
        super().__init__(path, reason)
        self.args = (f"cannot read the picture {path}: {reason}.",)


# One axis of a resampling: for every output position, source indices and weights (M, K).
Taps: TypeAlias = tuple[NDArray[np.intp], NDArray[np.float64]]


def _linear(length: int, wanted: int) -> Taps:
    at = np.clip((np.arange(wanted) + 0.5) * length / wanted - 0.5, 0, length - 1)
    low = np.floor(at).astype(np.intp)
    share = at - low
    indices = np.stack([low, np.minimum(low + 1, length - 1)], 1)
    return indices, np.stack([1 - share, share], 1)


def _cubic_weight(distance: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Keys' kernel ("Cubic convolution interpolation", IEEE TASSP 1981)."""
    d = np.abs(distance)
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))


def _cubic(length: int, wanted: int) -> Taps:
    at = (np.arange(wanted) + 0.5) * length / wanted - 0.5
    low = np.floor(at).astype(np.intp)
    offsets = np.arange(-1, 3)
    weights = _cubic_weight((at - low)[:, None] - offsets, -0.75)
    return np.clip(low[:, None] + offsets, 0, length - 1), weights


def _nearest(length: int, wanted: int) -> Taps:
    """Ties fall as in OpenCV's ``INTER_NEAREST_EXACT`` and Pillow, which add up steps."""
    step = length / wanted
    at = np.cumsum([step / 2] + [step] * (wanted - 1)).astype(np.intp)
    return np.minimum(at, length - 1)[:, None], np.ones((wanted, 1))


def _area(length: int, wanted: int) -> Taps:
    """Every output pixel is the mean over the stretch that it covers; enlarging is linear."""
    if wanted > length:
        return _linear(length, wanted)
    step = length / wanted
    low = np.arange(wanted) * step
    indices = np.floor(low + 1e-9).astype(np.intp)[:, None] + np.arange(int(np.ceil(step)) + 1)
    covered = np.minimum(indices + 1, (low + step)[:, None]) - np.maximum(indices, low[:, None])
    weights = np.clip(covered, 0, None)
    return np.minimum(indices, length - 1), weights / weights.sum(1, keepdims=True)


def _antialiased(
    length: int, wanted: int, support: float, weigh: Callable[[NDArray[np.float64]], Array]
) -> Taps:
    """A kernel widened by the factor of reduction, cut off and normalised at the borders."""
    step = length / wanted
    wide = max(step, 1.0)
    centre = (np.arange(wanted) + 0.5) * step
    first = np.maximum((centre - support * wide + 0.5).astype(np.intp), 0)
    last = np.minimum((centre + support * wide + 0.5).astype(np.intp), length)
    indices = first[:, None] + np.arange(int((last - first).max()))
    weights = weigh((indices + 0.5 - centre[:, None]) / wide)
    weights = np.where(indices < last[:, None], weights, 0.0)
    return np.minimum(indices, length - 1), weights / weights.sum(1, keepdims=True)


def _linear_aa(length: int, wanted: int) -> Taps:
    return _antialiased(length, wanted, 1.0, lambda d: np.clip(1 - np.abs(d), 0, None))


def _cubic_aa(length: int, wanted: int) -> Taps:
    return _antialiased(length, wanted, 2.0, lambda d: _cubic_weight(d, -0.5))


KERNELS: dict[str, Callable[[int, int], Taps]] = {
    "linear": _linear,
    "linear_aa": _linear_aa,
    "nearest": _nearest,
    "area": _area,
    "cubic": _cubic,
    "cubic_aa": _cubic_aa,
}
"""Weights of one axis, by name of the kernel."""


def resize(values: Array, size: Size, kernel: str = "linear") -> Array:
    """Resample the first two axes.

    Args:
        values: (H, W) or (H, W, C); uint8 is rounded to uint8 again, floats become float32.
        size: height and width of the result.
        kernel: a name in `KERNELS`.

    Raises:
        ArgumentError: a side is empty.
    """
    if min(*values.shape[:2], *size) < 1:
        raise ArgumentError("size", "be positive, as the picture's", (values.shape[:2], size))
    if values.shape[:2] == size:
        return values
    whole = values.dtype == np.uint8
    if whole and kernel == "linear":
        return _linear_bytes(values, size)
    result = values if whole else values.astype(np.float32)
    # Pillow rounds after each axis; columns come first unless only rows become fewer.
    first = int(not (size[0] < values.shape[0] and size[1] > values.shape[1]))
    for axis in (first, 1 - first):
        if result.shape[axis] != size[axis]:
            result = _apply(result, KERNELS[kernel](result.shape[axis], size[axis]), axis)
            if whole and kernel.endswith("_aa"):
                result = np.clip(np.floor(result + 0.5), 0, 255)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8) if whole else result


def _linear_bytes(values: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """The linear kernel in OpenCV's arithmetic for bytes: weights of 11 bits, two sums cut off.

    Rounding instead would differ by one level in an eighth of all values.
    """
    indices, weights = _fixed_taps(values.shape[1], size[1], rest=False)
    shape = (1, -1, *(1,) * (values.ndim - 2))
    columns = sum(
        values.take(indices[k], 1).astype(np.int32) * weights[k].reshape(shape) for k in (0, 1)
    )
    indices, weights = _fixed_taps(values.shape[0], size[0], rest=True)
    shape = (-1, *(1,) * (values.ndim - 1))
    rows = [
        (np.take(columns, indices[k], 0) >> 4) * weights[k].reshape(shape) >> 16 for k in (0, 1)
    ]
    rounded: NDArray[np.uint8] = ((rows[0] + rows[1] + 2) >> 2).astype(np.uint8)
    return rounded


def _fixed_taps(length: int, wanted: int, *, rest: bool) -> tuple[Array, Array]:
    """Two indices (2, M) and their weights in 2048ths; `rest` keeps both weights at the borders."""
    at = ((np.arange(wanted) + 0.5) * (length / wanted) - 0.5).astype(np.float32)
    low = np.floor(at).astype(np.intp)
    share = at - low.astype(np.float32)
    if not rest:
        share[(low < 0) | (low >= length - 1)] = 0
    pair = np.stack([np.float32(1) - share, share])
    indices = np.clip(np.stack([low, low + 1]), 0, length - 1)
    return indices, np.rint(pair * np.float32(2048)).astype(np.int32)


def _apply(values: Array, taps: Taps, axis: int) -> Array:
    indices, weights = taps
    shape = [1] * values.ndim
    shape[axis] = len(indices)
    factors = weights.astype(np.float32)
    total = np.multiply(values.take(indices[:, 0], axis), factors[:, 0].reshape(shape))
    for k in range(1, indices.shape[1]):
        if factors[:, k].any():
            part = values.take(indices[:, k], axis)
            whole = part.dtype == np.uint8
            part = np.multiply(part, factors[:, k].reshape(shape), out=None if whole else part)
            total += part
    return total


def decode(picture: Picture, where: str = "the picture") -> NDArray[np.uint8]:
    """RGB (H, W, 3) uint8 of a file, a picture of Pillow or an array.

    Grey, palettes, CMYK and the like are converted and transparency is dropped, as in training. The
    orientation tag of a camera is not applied, because training does not either.

    Raises:
        UnreadablePictureError: the file is missing, no image, or damaged.
        PictureError: more than 8 bits a channel, or an array of another shape or type.
    """
    if isinstance(picture, str | Path):
        return _open(Path(picture))
    if isinstance(picture, Image.Image):
        return _rgb(picture, where)
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, 2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8:
        raise PictureError(
            f"{where} must be a uint8 array (H, W), (H, W, 3) or (H, W, 4) with values 0 to 255, "
            f"found shape {np.shape(picture)} of {array.dtype}."
        )
    return array[..., :3]


def _open(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            image.load()
            return _rgb(image, str(path))
    except FileNotFoundError:
        raise UnreadablePictureError(path, "no such file") from None
    except PictureError:
        raise
    # What Pillow's decoders raise on damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadablePictureError(path, str(error).rstrip(".")) from error


def _rgb(image: Image.Image, where: str) -> NDArray[np.uint8]:
    if image.mode not in MODES:
        raise PictureError(
            f"{where} must have 8 bits a channel, found mode {image.mode}: say which range matters "
            "by converting it yourself, for example to grey with mode L."
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


@dataclass(frozen=True)
class Step:
    """One change of geometry: what maps of the result are undone by.

    Args:
        before: height and width before it.
        after: and after it.
        corner: (top, left) of the result in the picture before, for paddings (negative) and crops;
            None for resampling.
    """

    before: Size
    after: Size
    corner: tuple[int, int] | None = None


class ImagePipeline:
    """The operations of a ``preprocess.json`` of kind ``image``.

    Args:
        document: the JSON data.
        where: the file, for messages.

    Raises:
        FolderError: an operation or a kernel is none of the known ones, or lacks an entry.
    """

    def __init__(self, document: Mapping[str, Any], where: str = "preprocess.json") -> None:
        self.operations: list[dict[str, Any]] = list(document.get("operations", ()))
        for step in self.operations:
            name = step.get("op")
            if name not in _ENTRIES:
                known = ", ".join(_ENTRIES)
                raise FolderError(f"operations of {where} must be of {known}, found {name!r}.")
            absent = [entry for entry in _ENTRIES[name] if entry not in step]
            if absent:
                raise FolderError(f"operation {name!r} of {where} must hold {', '.join(absent)}.")
            for key in ("kernel", "reduce"):
                if step.get(key, "linear") not in KERNELS:
                    known = ", ".join(KERNELS)
                    raise FolderError(
                        f"{key} of {name!r} in {where} must be one of {known}, found {step[key]!r}."
                    )

    def __call__(self, picture: Picture, where: str = "the picture") -> tuple[Array, list[Step]]:
        """What the graph takes of one picture, without the batch axis, and the way it went.

        Raises:
            UnreadablePictureError: see `decode`.
            PictureError: the picture is of a kind or size that the model does not take.
        """
        values: Array = decode(picture, where)
        path = [Step(values.shape[:2], values.shape[:2])]
        for step in self.operations:
            match step["op"]:
                case "resize":
                    values = self._resize(values, step, path)
                case "pad":
                    values = self._pad(values, step, path, where)
                case "center_crop":
                    values = self._crop(values, step, path, where)
                case "scale":
                    values = values.astype(np.float32) * np.float32(step["factor"])
                case "layout" if step["order"] in ("chw", "nchw"):
                    values = np.ascontiguousarray(values.transpose(2, 0, 1))
        return values, path

    def _resize(self, values: Array, step: Mapping[str, Any], path: list[Step]) -> Array:
        before: Size = values.shape[:2]
        size: Size = (int(step["size"][0]), int(step["size"][1]))
        if step.get("keep_ratio"):
            factor = min(size[0] / before[0], size[1] / before[1])
            size = (max(1, round(before[0] * factor)), max(1, round(before[1] * factor)))
        kernel = step["kernel"]
        if size[0] < before[0] and size[1] < before[1]:
            kernel = step.get("reduce", kernel)
        path.append(Step(before, size))
        return resize(values, size, kernel)

    def _pad(self, values: Array, step: Mapping[str, Any], path: list[Step], where: str) -> Array:
        (height, width), size = values.shape[:2], step["size"]
        if height > size[0] or width > size[1]:
            raise PictureError(
                f"{where} must be at most {size[0]} high and {size[1]} wide, which the model pads "
                f"it to, found {height} by {width}: make it smaller or cut it."
            )
        centred = step.get("position", "center") == "center"
        top, left = ((size[0] - height) // 2, (size[1] - width) // 2) if centred else (0, 0)
        canvas = np.empty((size[0], size[1], values.shape[2]), values.dtype)
        canvas[:] = step["fill"]
        canvas[top : top + height, left : left + width] = values
        path.append(Step((height, width), (size[0], size[1]), (-top, -left)))
        return canvas

    def _crop(self, values: Array, step: Mapping[str, Any], path: list[Step], where: str) -> Array:
        (height, width), size = values.shape[:2], step["size"]
        if height < size[0] or width < size[1]:
            raise PictureError(
                f"{where} must be at least {size[0]} high and {size[1]} wide to be cut out of, "
                f"found {height} by {width}."
            )
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        path.append(Step((height, width), (size[0], size[1]), (top, left)))
        return values[top : top + size[0], left : left + size[1]]


_ENTRIES: dict[str, Sequence[str]] = {
    "decode": (),
    "resize": ("size", "kernel"),
    "pad": ("size", "fill"),
    "center_crop": ("size",),
    "scale": ("factor",),
    "layout": ("order",),
}


def restore(maps: Array, path: Sequence[Step]) -> Array:
    """Bring maps of the graph's size back to the picture's own height and width.

    Resampled bilinearly where the picture was resized, padding cut off; what a crop left out is
    NaN.

    Args:
        maps: (C, h, w) or (h, w) floats.
        path: as `ImagePipeline` gives it with the picture.
    """
    planes = maps.reshape(-1, *maps.shape[-2:])
    for step in reversed(path):
        if step.corner is None:
            if step.before != step.after:
                whole = np.empty((len(planes), *step.before), np.float32)
                for plane, enlarged in zip(planes, whole, strict=True):
                    enlarged[:] = resize(plane, step.before)
                planes = whole
            continue
        top, left = step.corner
        if step.after[0] <= step.before[0] and step.after[1] <= step.before[1]:
            whole = np.full((len(planes), *step.before), np.nan, planes.dtype)
            whole[:, top : top + step.after[0], left : left + step.after[1]] = planes
            planes = whole
        else:
            height, width = step.before
            planes = planes[:, -top : -top + height, -left : -left + width]
    return np.ascontiguousarray(planes).reshape(*maps.shape[:-2], *planes.shape[-2:])
