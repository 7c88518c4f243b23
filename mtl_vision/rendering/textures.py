"""Procedural surface patterns, evaluated for all pixels at once.

Colours and patterns are drawn without regard to what they are put on: a wall may be of wood and a
bed of brick, so that neither says what a surface belongs to.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mtl_vision.rendering.draws import Draws

# NumPy's stubs widen float32 arithmetic to unions; `Any` keeps the annotations readable.
Floats: TypeAlias = NDArray[Any]

COLUMNS = (
    "red", "green", "blue", "red2", "green2", "blue2",
    "cosine", "sine", "frequency", "phase_u", "phase_v", "gloss", "grain",
)  # fmt: skip
"""What a material is made of: two linear colours, the pattern's turn, cells per metre and shift,
the strength of its highlight and of its grain."""

_SIZE = 128
_CELL = 8


def draw_materials(draws: Draws, count: int) -> tuple[NDArray[np.uint8], Floats]:
    """Draw `count` materials.

    Returns:
        Patterns (M,), indices into `PATTERNS`, and rows (M, 13) of `COLUMNS`.
    """
    u = draws.block(count, 20).T
    first, other = _colours(u[0:5]), _colours(u[5:10])
    factor = np.array((0.35, 0.5, 0.65, 1.5, 1.9))[(5 * u[10]).astype(np.int64)]
    second = np.where(u[11] < 0.5, other, np.minimum(first * factor, 0.95))
    # A turn by 2 atan(t) in two cases of five, from arithmetic that is the same on every machine.
    t = np.where(u[12] < 0.6, 0, u[13] - 0.5)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    frequency = 1 / (0.12 + 0.48 * u[14])
    gloss = np.where(u[15] < 0.4, 0.05 + 1.1 * u[15], 0)
    rest = (cosine, sine, frequency, 16 * u[16], 16 * u[17], gloss, 0.05 + 0.3 * u[19])
    pattern = (len(PATTERNS) * u[18]).astype(np.uint8)
    return pattern, np.stack((*first, *second, *rest), axis=1).astype(np.float32)


def _colours(u: Floats) -> Floats:
    """Linear RGB (3, M) from draws (5, M): mostly muted, sometimes saturated, of any brightness."""
    value, chroma = 0.12 + 0.63 * u[0], 1.2 * u[1] * u[1]
    colours: Floats = np.clip(value * (1 + chroma * (2 * u[2:] - 1)), 0.02, 0.95)
    return colours


@lru_cache(maxsize=1)
def _table() -> Floats:
    """Tileable value noise in [0, 1], flattened from 128 x 128; a lattice cell spans 8 entries."""
    total = np.zeros((_SIZE, _SIZE), np.float32)
    for octave, weight in ((1, 0.6), (2, 0.4)):
        cells, span = _SIZE // _CELL * octave, _CELL // octave
        lattice = Draws([octave]).bytes(cells * cells).reshape(cells, cells) / np.float32(255)
        x = np.arange(_SIZE) / np.float32(span)
        low = np.floor(x)
        f = (x - low).astype(np.float32)
        f = f * f * (3 - 2 * f)
        i, j = low.astype(np.int64) % cells, (low.astype(np.int64) + 1) % cells
        rows = lattice[i] * (1 - f)[:, None] + lattice[j] * f[:, None]
        total += weight * (rows[:, i] * (1 - f) + rows[:, j] * f)
    table: Floats = np.clip((total - 0.5) * 1.6 + 0.5, 0, 1).reshape(-1)
    return table


def noise(u: Floats, v: Floats) -> Floats:
    """Smooth noise in [0, 1] with features of about one unit, repeating every 16."""
    i = (u * _CELL).astype(np.int32) & (_SIZE - 1)
    j = (v * _CELL).astype(np.int32) & (_SIZE - 1)
    return np.take(_table(), i * _SIZE + j, mode="clip")


def _fraction(x: Floats) -> Floats:
    return x - np.floor(x)


def _step(x: Floats, sharpness: float = 8.0) -> Floats:
    """From 0 to 1 around 0."""
    return np.clip(x * sharpness + np.float32(0.5), 0, 1)


def _mottled(u: Floats, v: Floats) -> Floats:
    return noise(u, v)


def _stripes(u: Floats, v: Floats) -> Floats:
    return _step(np.abs(_fraction(u) - np.float32(0.5)) - np.float32(0.25))


def _checker(u: Floats, v: Floats) -> Floats:
    return _fraction((np.floor(u) + np.floor(v)) * np.float32(0.5)) * 2


def _grid(u: Floats, v: Floats) -> Floats:
    """Joints 1 at the borders of cells, cells between 0 and 0.5."""
    edge = np.maximum(
        np.abs(_fraction(u) - np.float32(0.5)), np.abs(_fraction(v) - np.float32(0.5))
    )
    shade = noise(np.floor(u) * np.float32(1.7), np.floor(v) * np.float32(2.3)) * np.float32(0.5)
    return np.maximum(_step(edge - np.float32(0.44), 16.0), shade)


def _bricks(u: Floats, v: Floats) -> Floats:
    v = v * np.float32(2)
    return _grid(u + np.floor(v) * np.float32(0.5), v)


def _planks(u: Floats, v: Floats) -> Floats:
    """Boards along u with grain, a dark joint between them."""
    board = np.floor(v)
    joint = _step(np.abs(_fraction(v) - np.float32(0.5)) - np.float32(0.46), 24.0)
    grain = noise(u * np.float32(0.7) + board * np.float32(5.3), v * np.float32(6))
    rings = np.abs(_fraction(grain * 3 + board * np.float32(0.37)) - np.float32(0.5))
    return np.maximum(rings, joint)


def _dots(u: Floats, v: Floats) -> Floats:
    x, y = _fraction(u) - np.float32(0.5), _fraction(v) - np.float32(0.5)
    return _step(np.float32(0.09) - (x * x + y * y), 30.0)


def _patches(u: Floats, v: Floats) -> Floats:
    return _step(noise(u * np.float32(0.8), v * np.float32(0.8)) - np.float32(0.5))


def _veins(u: Floats, v: Floats) -> Floats:
    return _step(
        np.float32(0.05) - np.abs(noise(u * np.float32(0.5), v * np.float32(0.5)) - 0.5), 14.0
    )


PATTERNS: tuple[Callable[[Floats, Floats], Floats], ...] = (
    _mottled, _stripes, _checker, _grid, _bricks, _planks, _dots, _patches, _veins,
)  # fmt: skip
"""Mixture in [0, 1] of a material's two colours at (u, v), in cells."""


def albedo(
    materials: Floats, patterns: NDArray[np.uint8], index: NDArray[np.int64], u: Floats, v: Floats,
    footprint: Floats,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Colour of surface points.

    Args:
        materials: (M, 13) rows of `COLUMNS`.
        patterns: (M,) indices into `PATTERNS`.
        index: (N,) material of each point.
        u: (N,) surface coordinate, metres.
        v: (N,) the other one.
        footprint: (N,) width of a pixel on the surface, metres; patterns finer than it fade out.

    Returns:
        Linear colours (3, N) and the strength of highlights (N,).
    """
    rows = np.take(np.ascontiguousarray(materials.T), index, axis=1, mode="clip")
    cosine, sine, frequency, phase_u, phase_v, gloss, grain = rows[6:]
    # The offset keeps coordinates positive, where truncation is the floor.
    x = (cosine * u + sine * v) * frequency + phase_u + np.float32(256)
    y = (cosine * v - sine * u) * frequency + phase_v + np.float32(256)
    kind = patterns.take(index, mode="clip")
    mix = np.empty_like(u)
    for number, pattern in enumerate(PATTERNS):
        where = np.flatnonzero(kind == number)
        if where.size:
            mix[where] = pattern(x.take(where, mode="clip"), y.take(where, mode="clip"))
    fade = np.clip(np.float32(1.5) - footprint * frequency * np.float32(2), 0, 1)
    mix = np.float32(0.4) + (mix - np.float32(0.4)) * fade
    speckle = 1 + grain * (noise(x * np.float32(3.1), y * np.float32(3.1)) - np.float32(0.5)) * fade
    return (rows[:3] + (rows[3:6] - rows[:3]) * mix) * speckle, gloss
