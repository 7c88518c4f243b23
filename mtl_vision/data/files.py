"""Reading images and maps from files; whatever cannot be read is named with its path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl_core.errors import ArgumentError, UnreadableFileError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
"""Endings, in lower case, of the files taken for images."""

Array: TypeAlias = NDArray[Any]
T = TypeVar("T")

# Modes of Pillow that hold 8-bit colour or grey, and those that hold one value per pixel.
_COLOUR = ("RGB", "L", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "1")
_VALUES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L")


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image as (H, W, 3) uint8 RGB; grey and palettes are converted, transparency is dropped.

    The orientation tag is not applied, because maps lie on the pixels as they are stored.

    Raises:
        UnreadableFileError: truncated, corrupt, missing, or of more than 8 bits a channel.
    """

    def decode(image: Image.Image) -> NDArray[np.uint8]:
        if image.mode not in _COLOUR:
            raise ValueError(f"an image must have 8 bits a channel, found mode {image.mode}")
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))

    return _open(path, decode)


def read_values(path: Path) -> Array:
    """One stored number per pixel, (H, W): a PNG of 1, 8, 16 or 32 bits, or a ``.npy`` array.

    Palettes give their indices. Integers keep their type; 1-bit images give 0 and 1 in uint8.

    Raises:
        UnreadableFileError: not readable, or of several channels.
    """
    if path.suffix == ".npy":
        array = _load_npy(path)
        if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
            array = array[0] if array.shape[0] == 1 else array[..., 0]
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            found = f"found shape {array.shape} of {array.dtype}"
            raise UnreadableFileError(path, f"a map must be (H, W) numbers, {found}")
        return array.astype(np.uint8) if array.dtype == np.bool_ else array

    def decode(image: Image.Image) -> Array:
        if image.mode not in _VALUES:
            raise ValueError(f"a map must have one channel, found mode {image.mode}")
        array = np.asarray(image)
        if array.dtype == np.bool_:
            return array.astype(np.uint8)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    return _open(path, decode)


def read_labels(path: Path, *, ignore: int | None = None, offset: int = 0) -> Array:
    """A label map (H, W): classes from 0, unlabelled pixels 255.

    Args:
        path: see `read_values`.
        ignore: stored value of unlabelled pixels besides 255.
        offset: added to the stored value of all other pixels; -1 for files that count from 1.

    Returns:
        uint8, or int64 where a class exceeds 254. A class that `offset` makes negative stays so and
        is refused by its task.
    """
    values = read_values(path)
    if values.dtype.kind == "f":
        raise UnreadableFileError(path, f"a label map must hold integers, found {values.dtype}")
    if ignore is None and offset == 0:
        return values if values.dtype == np.uint8 else _narrow(values.astype(np.int64))
    unknown = values == 255
    if ignore is not None:
        unknown |= values == ignore
    return _narrow(np.where(unknown, 255, values.astype(np.int64) + offset))


def read_binary(path: Path, *, threshold: int | None = None, ignore: int | None = None) -> Array:
    """A yes/no map (H, W) uint8 of 0, 1 and 255 (unlabelled).

    Args:
        path: see `read_values`.
        threshold: stored values from here on are 1, below 0. None: the file stores 0 and 1.
        ignore: stored value of unlabelled pixels; without a threshold 255 is one as well.
    """
    if threshold is None:
        return read_labels(path, ignore=ignore)
    values = read_values(path)
    result = (values >= threshold).astype(np.uint8)
    if ignore is not None:
        result[values == ignore] = 255
    return result


def read_depth(
    path: Path, *, scale: float = 1.0, ignore: float | None = None
) -> NDArray[np.float32]:
    """A depth map (H, W) float32 in metres, 0 where unknown.

    Args:
        path: see `read_values`; typically a 16-bit PNG or a ``.npy``.
        scale: metres per stored unit (0.001 for millimetres).
        ignore: stored value of unknown pixels besides 0.
    """
    if not scale > 0:
        raise ArgumentError("scale", "be positive", scale)
    values = read_values(path)
    depth = values.astype(np.float32) * np.float32(scale)
    if ignore is not None:
        depth[values == ignore] = 0
    return depth


def read_normals(path: Path) -> NDArray[np.float32]:
    """Normals (H, W, 3) float32: unit vectors, zero where unknown.

    An 8-bit RGB image stores ``v = 2 p / 255 - 1`` per component; a ``.npy`` holds the components,
    (H, W, 3) or (3, H, W). Vectors are brought to length 1; those whose length is off by more than
    one half are no unit vectors and count as unknown.
    """
    if path.suffix == ".npy":
        normals = _load_npy(path).astype(np.float32)
        if normals.ndim == 3 and normals.shape[0] == 3 and normals.shape[2] != 3:
            normals = normals.transpose(1, 2, 0)
        if normals.ndim != 3 or normals.shape[2] != 3:
            found = f"found shape {normals.shape}"
            raise UnreadableFileError(path, f"normals must be (H, W, 3), {found}")
    else:
        normals = read_image(path).astype(np.float32) * np.float32(2 / 255) - 1
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    known = np.abs(length - 1) <= 0.5
    unit = normals / np.where(known, length, 1)
    # NaN is not "unknown": it stays, and is refused with the sample's name.
    return np.where(known | np.isnan(length), unit, 0).astype(np.float32)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, from its header."""
    return _open(path, lambda image: (image.height, image.width), load=False)


def _narrow(labels: NDArray[np.int64]) -> Array:
    fits = not labels.size or (labels.min() >= 0 and labels.max() <= 255)
    return labels.astype(np.uint8) if fits else labels


def _open(path: Path, decode: Callable[[Image.Image], T], *, load: bool = True) -> T:
    try:
        with Image.open(path) as image:
            if load:
                image.load()
            return decode(image)
    except FileNotFoundError:
        raise UnreadableFileError(path, "no such file") from None
    # What Pillow's decoders raise on damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(path, error) from error


def _load_npy(path: Path) -> Array:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise UnreadableFileError(path, "no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableFileError(path, error) from error
