"""Things that stand, lie and hang in a room, each built from boxes, cylinders and spheres.

Lengths are metres. An item's own frame has its origin at the middle of its footprint (on the wall
for hanging items), x along its width, y from its front towards its back and z up.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from mtl_vision.rendering.draws import Draws

Vector = tuple[float, float, float]


class Shape(IntEnum):
    """Convex solids that rays are intersected with; cylinders stand upright."""

    BOX = 0
    CYLINDER = 1
    SPHERE = 2


class Part(NamedTuple):
    """One solid of an item.

    Args:
        shape: which solid.
        centre: of the solid, in the item's frame.
        half: half extents along x, y and z: radius, radius and half height of a cylinder, three
            times the radius of a sphere.
        slot: parts of an item with the same slot have the same material.
    """

    shape: Shape
    centre: Vector
    half: Vector
    slot: int = 0


class Item(NamedTuple):
    """Parts with the size (width, depth, height) of the box around them."""

    parts: tuple[Part, ...]
    size: Vector

    def scaled(self, factor: float) -> "Item":
        """The same thing, larger or smaller."""
        parts = tuple(
            Part(part.shape, _times(part.centre, factor), _times(part.half, factor), part.slot)
            for part in self.parts
        )
        return Item(parts, _times(self.size, factor))


def _times(vector: Vector, factor: float) -> Vector:
    return vector[0] * factor, vector[1] * factor, vector[2] * factor


def box(low: Vector, high: Vector, slot: int = 0) -> Part:
    """A box given by two opposite corners."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    centre = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
    return Part(Shape.BOX, centre, ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2), slot)


def cylinder(
    centre: tuple[float, float], radius: float, z: tuple[float, float], slot: int = 0
) -> Part:
    """An upright cylinder between two heights."""
    middle, half = (z[0] + z[1]) / 2, (z[1] - z[0]) / 2
    return Part(Shape.CYLINDER, (*centre, middle), (radius, radius, half), slot)


def sphere(centre: Vector, radius: float, slot: int = 0) -> Part:
    """A ball."""
    return Part(Shape.SPHERE, centre, (radius, radius, radius), slot)


def _legs(w: float, d: float, top: float, thick: float, slot: int) -> list[Part]:
    """Four square legs at the corners of a w by d rectangle."""
    return [
        box((x - thick, y - thick, 0.0), (x + thick, y + thick, top), slot)
        for x in (-w / 2 + thick, w / 2 - thick)
        for y in (-d / 2 + thick, d / 2 - thick)
    ]


def bed(draws: Draws) -> Item:
    """Base, mattress, headboard, and a pillow or two; sometimes a blanket over the foot end."""
    w, d = draws.uniform(0.9, 1.8), draws.uniform(1.9, 2.2)
    base, top = draws.uniform(0.15, 0.3), draws.uniform(0.4, 0.6)
    head = draws.uniform(0.75, 1.2)
    parts = [
        box((-w / 2, -d / 2, 0), (w / 2, d / 2, base)),
        box((-w / 2 + 0.03, -d / 2 + 0.03, base), (w / 2 - 0.03, d / 2 - 0.08, top), 1),
        box((-w / 2, d / 2 - 0.08, 0), (w / 2, d / 2, head)),
    ]
    pillows = 2 if w > 1.3 else 1
    for i in range(pillows):
        x = (i + 0.5) * w / pillows - w / 2
        y = d / 2 - 0.35
        parts.append(box((x - 0.28, y - 0.18, top), (x + 0.28, y + 0.2, top + 0.12), 2))
    if draws.chance(0.5):
        end = -d / 2 + draws.uniform(0.5, 1.1)
        parts.append(
            box((-w / 2 - 0.01, -d / 2 + 0.01, base + 0.05), (w / 2 + 0.01, end, top + 0.03), 3)
        )
    return Item(tuple(parts), (w + 0.02, d, head))


def sofa(draws: Draws) -> Item:
    """Seat, back, two arms and loose seat cushions; with one cushion an armchair."""
    seats = 1 + draws.integer(3)
    arm, w = draws.uniform(0.12, 0.22), seats * draws.uniform(0.55, 0.7)
    w, d = w + 2 * arm, draws.uniform(0.75, 0.95)
    seat, back = draws.uniform(0.28, 0.36), draws.uniform(0.7, 0.95)
    elbow = draws.uniform(0.5, 0.65)
    parts = [
        box((-w / 2, -d / 2, 0.05), (w / 2, d / 2, seat)),
        box((-w / 2, d / 2 - 0.2, seat), (w / 2, d / 2, back)),
        box((-w / 2, -d / 2, seat), (-w / 2 + arm, d / 2 - 0.2, elbow)),
        box((w / 2 - arm, -d / 2, seat), (w / 2, d / 2 - 0.2, elbow)),
    ]
    step = (w - 2 * arm) / seats
    for i in range(seats):
        x = -w / 2 + arm + i * step
        low, high = (x + 0.01, -d / 2 - 0.02, seat), (x + step - 0.01, d / 2 - 0.2, seat + 0.13)
        parts.append(box(low, high, 1))
    return Item(tuple(parts), (w, d + 0.04, back))


def chair(draws: Draws) -> Item:
    """Seat, four legs and a back of one board or of two rails."""
    w, d = draws.uniform(0.4, 0.5), draws.uniform(0.4, 0.5)
    seat, back = draws.uniform(0.42, 0.48), draws.uniform(0.8, 1.05)
    thick = draws.uniform(0.018, 0.03)
    parts = [
        box((-w / 2, -d / 2, seat - 0.05), (w / 2, d / 2, seat), 1),
        *_legs(w, d, seat - 0.05, thick, 0),
    ]
    if draws.chance(0.5):
        parts.append(box((-w / 2, d / 2 - 0.04, seat), (w / 2, d / 2, back), 1))
    else:
        parts += [
            box((x, d / 2 - 2 * thick, seat), (x + 2 * thick, d / 2, back))
            for x in (-w / 2, w / 2 - 2 * thick)
        ]
        parts += [
            box((-w / 2, d / 2 - 0.035, z), (w / 2, d / 2 - 0.01, z + 0.12), 1)
            for z in (back - 0.12, (seat + back) / 2 - 0.06)
        ]
    return Item(tuple(parts), (w, d, back))


def table(draws: Draws) -> Item:
    """A board on four legs, or a round board on a column; of dining or coffee height."""
    top = draws.uniform(0.68, 0.8) if draws.chance(0.7) else draws.uniform(0.35, 0.5)
    board = draws.uniform(0.03, 0.07)
    if draws.chance(0.3):
        r = draws.uniform(0.35, 0.6)
        parts = [
            cylinder((0, 0), r, (top - board, top), 1),
            cylinder((0, 0), draws.uniform(0.04, 0.08), (0.03, top - board)),
            cylinder((0, 0), r * 0.55, (0, 0.03)),
        ]
        return Item(tuple(parts), (2 * r, 2 * r, top))
    w, d = draws.uniform(0.8, 1.7), draws.uniform(0.55, 0.9)
    parts = [
        box((-w / 2, -d / 2, top - board), (w / 2, d / 2, top), 1),
        *_legs(w - 0.06, d - 0.06, top - board, draws.uniform(0.02, 0.045), 0),
    ]
    return Item(tuple(parts), (w, d, top))


def cabinet(draws: Draws) -> Item:
    """A closed body with proud fronts, or open shelves; low or tall."""
    w, d, h = draws.uniform(0.5, 1.6), draws.uniform(0.35, 0.6), draws.uniform(0.6, 2.0)
    if draws.chance(0.35):
        rows = max(2, int(h / 0.38))
        parts = [
            box((-w / 2, d / 2 - 0.03, 0), (w / 2, d / 2, h)),
            box((-w / 2, -d / 2, 0), (-w / 2 + 0.04, d / 2 - 0.03, h)),
            box((w / 2 - 0.04, -d / 2, 0), (w / 2, d / 2 - 0.03, h)),
        ]
        for i in range(rows + 1):
            z = i * (h - 0.04) / rows
            low, high = (-w / 2 + 0.04, -d / 2, z), (w / 2 - 0.04, d / 2 - 0.03, z + 0.04)
            parts.append(box(low, high, 1))
        return Item(tuple(parts), (w, d, h))
    parts = [box((-w / 2, -d / 2 + 0.025, 0), (w / 2, d / 2, h))]
    columns, rows = 1 + draws.integer(2), 1 + draws.integer(3)
    for i in range(columns):
        for j in range(rows):
            x, z = i * w / columns - w / 2, 0.06 + j * (h - 0.08) / rows
            low = (x + 0.02, -d / 2, z + 0.015)
            high = (x + w / columns - 0.02, -d / 2 + 0.03, z + (h - 0.08) / rows - 0.015)
            parts.append(box(low, high, 1))
    return Item(tuple(parts), (w, d, h))


def lamp(draws: Draws) -> Item:
    """Foot, pole and a shade that is a drum or a ball."""
    h = draws.uniform(1.3, 1.75)
    r = draws.uniform(0.14, 0.24)
    drum = draws.chance(0.6)
    shade = draws.uniform(0.22, 0.34) if drum else 2 * r
    parts = [
        cylinder((0, 0), r * 0.75, (0, 0.03)),
        cylinder((0, 0), draws.uniform(0.012, 0.025), (0.03, h - shade)),
        cylinder((0, 0), r, (h - shade, h), 1) if drum else sphere((0, 0, h - r), r, 1),
    ]
    return Item(tuple(parts), (2 * r, 2 * r, h))


def plant(draws: Draws) -> Item:
    """A pot with a cluster of leaf balls."""
    r, pot = draws.uniform(0.11, 0.2), draws.uniform(0.18, 0.35)
    parts = [cylinder((0, 0), r, (0, pot))]
    reach = r + draws.uniform(0.04, 0.12)
    top = pot
    for i in range(3 + draws.integer(3)):
        leaf = draws.uniform(0.09, 0.17)
        x, y = draws.uniform(-reach, reach) * 0.7, draws.uniform(-reach, reach) * 0.7
        z = pot + leaf * 0.7 + i * draws.uniform(0.03, 0.13)
        parts.append(sphere((x, y, z), leaf, 1))
        top = max(top, z + leaf)
    return Item(tuple(parts), (2 * reach + 0.1, 2 * reach + 0.1, top))


def rug(draws: Draws) -> Item:
    """A flat mat, with a border or round."""
    h = draws.uniform(0.012, 0.02)
    if draws.chance(0.3):
        r = draws.uniform(0.6, 1.1)
        return Item((cylinder((0, 0), r, (0, h)),), (2 * r, 2 * r, h))
    w, d = draws.uniform(1.2, 2.6), draws.uniform(0.9, 1.8)
    border = draws.uniform(0.06, 0.15)
    parts = (
        box((-w / 2, -d / 2, 0), (w / 2, d / 2, h - 0.004)),
        box((border - w / 2, border - d / 2, 0), (w / 2 - border, d / 2 - border, h), 1),
    )
    return Item(parts, (w, d, h))


def picture(draws: Draws) -> Item:
    """A framed canvas; z is measured from its lower edge."""
    w, h = draws.uniform(0.4, 1.2), draws.uniform(0.35, 0.9)
    rim = draws.uniform(0.03, 0.07)
    parts = (
        box((-w / 2, -0.03, 0), (w / 2, 0, h)),
        box((rim - w / 2, -0.036, rim), (w / 2 - rim, 0, h - rim), 1),
    )
    return Item(parts, (w, 0.036, h))


def window(draws: Draws) -> Item:
    """A pane in a frame with mullion, transom and sill; z is measured from the sill."""
    w, h = draws.uniform(0.8, 1.7), draws.uniform(0.9, 1.3)
    rim, bar = 0.07, 0.025
    level = h * draws.uniform(0.45, 0.7)
    frame = [
        box((-w / 2, -0.07, 0.05), (rim - w / 2, 0, h)),
        box((w / 2 - rim, -0.07, 0.05), (w / 2, 0, h)),
        box((-w / 2, -0.07, h - rim), (w / 2, 0, h)),
        box((-w / 2 - 0.06, -0.14, 0), (w / 2 + 0.06, 0, 0.05)),
        box((-bar, -0.06, 0.05), (bar, 0, h - rim)),
        box((-w / 2, -0.06, level - bar), (w / 2, 0, level + bar)),
    ]
    pane = box((-w / 2, -0.015, 0.05), (w / 2, 0, h), 1)
    return Item((*frame, pane), (w + 0.12, 0.14, h))


FURNITURE: dict[str, Callable[[Draws], Item]] = {
    "bed": bed,
    "sofa": sofa,
    "chair": chair,
    "table": table,
    "cabinet": cabinet,
    "lamp": lamp,
    "plant": plant,
    "rug": rug,
    "picture": picture,
    "window": window,
}
"""Builders by class name."""
