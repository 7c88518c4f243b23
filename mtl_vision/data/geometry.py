"""One geometric sampling, applied alike to an image and all of its maps.

OpenCV, which albumentations brings along, does the resampling.
"""

import math
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_vision.data.augmentation import Size
from mtl_vision.thinning import thin

Array: TypeAlias = NDArray[Any]


class Warp:
    """Rotate and scale about the centre onto a canvas, then crop or pad to a size.

    Args:
        shape: of the image.
        size: of the output.
        zoom: the random zoom, by which depth is divided.
        angle: degrees, clockwise as displayed.
        factors: (vertical, horizontal) scale, the zoom included.
        canvas: height and width, on whose centre the image's centre falls.
        corner: (top, left) of the output in the canvas, negative where padded.
        label_fill: of uncovered pixels of label and boundary maps.
    """

    def __init__(
        self,
        shape: Size,
        size: Size,
        zoom: float,
        angle: float,
        factors: tuple[float, float],
        canvas: Size,
        corner: tuple[int, int],
        label_fill: int,
    ) -> None:
        self.shape, self.size, self.zoom, self.angle = shape, size, zoom, angle
        self.factors, self.corner, self.label_fill = factors, corner, label_fill
        self.unscaled = angle == 0 and factors == (1.0, 1.0)
        self.identity = self.unscaled and corner == (0, 0) and size == shape
        self._fills = angle == 0 and corner == (0, 0) and canvas == size and zoom == 1
        # On continuous coordinates (x, y), in which pixel centres lie at halves.
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        self._linear = np.diag(factors[::-1]) @ np.asarray([[cos, -sin], [sin, cos]])
        self._offset = (np.asarray(canvas) / 2 - corner)[::-1] - self._linear @ (
            np.asarray(shape[::-1]) / 2
        )

    def smooth(self, image: Array, fill: tuple[float, ...], interpolation: int) -> Array:
        """Resampled with interpolation; a strong reduction averages first, against aliasing."""
        if self.unscaled:
            return self._shift(image, fill)
        largest = max(self.factors)
        if self._fills:
            return _resize(image, self.size, cv2.INTER_AREA if largest < 1 else interpolation)
        linear = self._linear
        if largest <= 0.5:
            height, width = (max(1, round(largest * n)) for n in image.shape[:2])
            linear = linear @ np.diag((image.shape[1] / width, image.shape[0] / height))
            image = _resize(image, (height, width), cv2.INTER_AREA)
        return self._affine(image, linear, fill, interpolation)

    def nearest(self, array: Array, fill: int) -> Array:
        """Resampled by nearest neighbour."""
        fills = (fill,) * (array.shape[2] if array.ndim == 3 else 1)
        if self.unscaled:
            return self._shift(array, fills)
        return self._affine(array, self._linear, fills, cv2.INTER_NEAREST)

    def boundary(self, array: Array) -> Array:
        """A boundary map resampled: connected, and one pixel thin, as before."""
        if self.unscaled:
            return self.nearest(array, self.label_fill)
        # Nearest neighbour loses pixels of a line that is reduced or turned, and thickens one that
        # is enlarged.
        width = math.ceil(1 / min(self.factors)) + (self.angle != 0)
        line = (array == 1).astype(np.uint8)
        if width > 1:
            line = cv2.dilate(line, np.ones((width, width), np.uint8))
        thinned = thin(self.nearest(line, 0) > 0)
        rest = self.nearest(np.where(array == 1, 0, array), self.label_fill)
        return np.where(thinned, array.dtype.type(1), rest)

    def _affine(
        self, array: Array, linear: Array, fill: tuple[float, ...], interpolation: int
    ) -> Array:
        half = np.asarray((0.5, 0.5))
        matrix = np.column_stack((linear, linear @ half + self._offset - half))
        return cv2.warpAffine(
            array,
            matrix,
            self.size[::-1],
            flags=interpolation,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill,
        )

    def _shift(self, array: Array, fill: tuple[float, ...]) -> Array:
        """Crop and padding alone."""
        if self.identity:
            return array
        result = np.empty((*self.size, *array.shape[2:]), array.dtype)
        result[:] = fill
        source, place = zip(*map(_overlap, self.corner, self.size, self.shape), strict=True)
        result[place] = array[source]
        return result


def _resize(array: Array, size: Size, interpolation: int) -> Array:
    if array.shape[:2] == size:
        return array
    return cv2.resize(array, size[::-1], interpolation=interpolation)


def _overlap(start: int, size: int, length: int) -> tuple[slice, slice]:
    """Where a window from `start` overlaps 0..length: in the source and in the window."""
    low, high = max(start, 0), min(start + size, length)
    return slice(low, high), slice(low - start, high - start)
