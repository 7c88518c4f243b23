"""Colours for classes, chosen to be told apart with and without colour blindness."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
"""Both steps of OKLab (Ottosson 2020), from linear sRGB."""

_VISION = (
    np.eye(3),
    np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
)
"""Normal vision, protanopia and deuteranopia on linear sRGB (Machado et al. 2009, severity 1)."""

_FIRST = (
    (58, 60, 66),
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""A dark grey for class 0, most often the background, and the colours of Okabe & Ito (2008)."""


def oklab(rgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """Lightness and two colour axes in which distances are close to seen differences.

    Args:
        rgb: (N, 3) linear sRGB in [0, 1].

    Returns:
        (N, 3): lightness in [0, 1], green to red, blue to yellow.
    """
    result: NDArray[np.float64] = np.cbrt(rgb.clip(0, 1) @ _TO_CONES.T) @ _TO_OKLAB.T
    return result


@cache
def palette(num_colours: int) -> tuple[tuple[int, int, int], ...]:
    """Colours for classes 0, 1, ...

    After a dark grey and the seven colours of Okabe & Ito, each further one is that of a grid in
    sRGB whose distance in OKLab to all before is largest, under the worst of normal vision,
    protanopia and deuteranopia. A longer palette starts with the shorter one.

    Args:
        num_colours: at least 1.

    Returns:
        (red, green, blue) in 0..255.

    >>> palette(3)[:2] == palette(2)
    True
    """
    level = np.linspace(0, 255, 11).round()
    pool = np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(-1, 3)
    linear = _linear(pool)
    lightness, *axes = oklab(linear).T
    chroma = np.hypot(*axes)
    # Neither so dark, pale or garish that a map of it hides its neighbours.
    usable = (lightness > 0.42) & (lightness < 0.92) & (chroma > 0.06) & (chroma < 0.22)
    pool, linear = pool[usable], linear[usable]
    seen = np.stack([oklab(linear @ vision.T) for vision in _VISION])
    start = _linear(np.array(_FIRST, dtype=np.float64))
    chosen = np.stack([oklab(start @ vision.T) for vision in _VISION])
    nearest = np.min([_distance(seen, chosen[:, i : i + 1]) for i in range(len(_FIRST))], axis=0)
    colours = list(_FIRST[:num_colours])
    while len(colours) < num_colours:
        best = int(nearest.argmax())
        red, green, blue = (int(value) for value in pool[best])
        colours.append((red, green, blue))
        nearest = np.minimum(nearest, _distance(seen, seen[:, best : best + 1]))
    return tuple(colours)


def _linear(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear sRGB in [0, 1] of 8-bit sRGB (IEC 61966-2-1)."""
    x = rgb / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _distance(seen: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest distance over kinds of vision, (N,)."""
    distance: NDArray[np.float64] = np.linalg.norm(seen - other, axis=2).min(0)
    return distance
