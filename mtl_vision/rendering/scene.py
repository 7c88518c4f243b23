"""A random room: its size, what stands in it, materials, lights and camera.

Room frame: origin in a lower corner, x along its width, y along its depth, z up; metres.
"""

from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mtl_vision.rendering.draws import Draws
from mtl_vision.rendering.furniture import FURNITURE, Item, Shape, Vector
from mtl_vision.rendering.raycast import Body, Floats, Ints, Window
from mtl_vision.rendering.textures import draw_materials

CLASS_NAMES = (
    "wall", "floor", "ceiling", "window", "picture", "rug", "bed", "sofa", "chair", "table",
    "cabinet", "lamp", "plant",
)  # fmt: skip
"""Semantic classes; a label is an index into this."""

FACES = 6
"""Instances 0..5 are the room's faces: x = 0, x = width, y = 0, y = depth, z = 0, z = height."""

_FACE_CLASSES = (0, 0, 0, 0, 1, 2)
_SALIENT = ("bed", "sofa", "chair", "table", "cabinet", "lamp", "plant")
SALIENT_CLASSES = tuple(CLASS_NAMES.index(name) for name in _SALIENT)
"""Classes of things that may be the salient one: all that stand in the room."""

_FLAT = ("rug", "picture", "window")

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Args:
        position: in the room's frame.
        right: unit vector of the image's x axis.
        up: unit vector against the image's y axis.
        forward: unit vector of the optical axis.
        tangent: of half the horizontal field of view.
    """

    position: Vector
    right: Vector
    up: Vector
    forward: Vector
    tangent: float

    def windows(self, bodies: list[Body], height: int, width: int) -> list[Window]:
        """Rows and columns that each body may cover; all if it reaches behind the camera."""
        whole = (slice(0, height), slice(0, width))
        if not bodies:
            return []
        offset = np.stack([body.corners for body in bodies]) - np.array(self.position)
        x, y, z = offset[..., 0], offset[..., 1], offset[..., 2]
        right, above, ahead = (
            x * a + y * b + z * c for a, b, c in (self.right, self.up, self.forward)
        )
        scale = width / (2 * self.tangent) / np.maximum(ahead, 0.05)
        limits = []
        for place, size in (
            (height / 2 - above * scale, height),
            (width / 2 + right * scale, width),
        ):
            # One pixel to spare on either side.
            limits.append(np.clip(place.min(1) - 1, 0, size).astype(np.int64).tolist())
            limits.append(np.clip(place.max(1) + 2, 0, size).astype(np.int64).tolist())
        behind = (ahead.min(1) < 0.05).tolist()
        return [
            whole if hidden else (slice(top, bottom), slice(left, right))
            for hidden, top, bottom, left, right in zip(behind, *limits, strict=True)
        ]


@dataclass(frozen=True)
class Light:
    """A point light: place, linear RGB strength, and whether things throw shadows in it."""

    position: Vector
    colour: Vector
    shadows: bool


@dataclass
class Scene:
    """What an image is computed from. Part 0 is the room itself, a box seen from inside."""

    size: Vector
    camera: Camera
    lights: list[Light]
    ambient: float
    bodies: list[Body] = field(default_factory=list)
    instance_class: list[int] = field(default_factory=lambda: list(_FACE_CLASSES))
    face_materials: list[int] = field(default_factory=list)
    part_instance: list[int] = field(default_factory=lambda: [0])
    part_material: list[int] = field(default_factory=lambda: [0])
    part_geometry: list[list[float]] = field(default_factory=list)
    """Per part: shape, centre, half extents, and the body's origin, cosine and sine."""
    material_count: int = 0
    patterns: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    materials: Floats = field(default_factory=lambda: np.zeros((0, 13), np.float32))

    def add_material(self) -> int:
        """Index of one more material; `build` draws all of them at the end."""
        self.material_count += 1
        return self.material_count - 1

    def add(self, name: str, item: Item, origin: Vector, turn: tuple[float, float]) -> None:
        """Put an item of class `name` at `origin`, turned about z by (cosine, sine)."""
        cosine, sine = turn
        instance = len(self.instance_class)
        self.instance_class.append(CLASS_NAMES.index(name))
        slots: dict[int, int] = {}
        parts = sorted(item.parts, key=lambda part: part.shape)
        first = len(self.part_instance)
        for part in parts:
            if part.slot not in slots:
                slots[part.slot] = self.add_material()
            self.part_instance.append(instance)
            self.part_material.append(slots[part.slot])
            self.part_geometry.append(
                [float(part.shape), *part.centre, *part.half, *origin, cosine, sine]
            )
        solids = np.array([[*p.centre, *p.half] for p in parts])
        low = (solids[:, :3] - solids[:, 3:]).min(0).tolist()
        high = (solids[:, :3] + solids[:, 3:]).max(0).tolist()
        corners = [
            (origin[0] + x * cosine - y * sine, origin[1] + x * sine + y * cosine, origin[2] + z)
            for x in (low[0], high[0])
            for y in (low[1], high[1])
            for z in (low[2], high[2])
        ]
        a, b = corners[0], corners[-1]
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2)
        reach = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2) / 4
        single = solids.astype(np.float32)
        shapes = [part.shape for part in parts]
        rounds = shapes.count(Shape.BOX)
        spheres = rounds + shapes.count(Shape.CYLINDER)
        box = [(u + v) / 2 for u, v in zip(low, high, strict=True)]
        box += [(v - u) / 2 + 1e-3 for u, v in zip(low, high, strict=True)]
        self.bodies.append(
            Body(
                origin=origin,
                cosine=cosine,
                sine=sine,
                boxes=single[:rounds],
                cylinders=single[rounds:spheres],
                spheres=single[spheres:],
                first=first,
                box=np.array(box, np.float32),
                corners=np.array(corners),
                top=b[2] + 1e-3,
                middle=middle,
                radius=sqrt(reach) * 1.001,
                casts=name not in _FLAT,
            )
        )

    def tables(self) -> tuple[Floats, Ints, Ints]:
        """Geometry (P, 12), instance (P,) and material (P,) of all parts."""
        half = [s / 2 for s in self.size]
        room = [float(Shape.BOX), *half, *half, 0.0, 0.0, 0.0, 1.0, 0.0]
        geometry = np.array([room, *self.part_geometry], np.float32)
        return geometry, np.array(self.part_instance), np.array(self.part_material)


def _unit(x: float, y: float, z: float) -> Vector:
    length = sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _turn(t: float) -> tuple[float, float]:
    """Cosine and sine of the angle 2 atan(t)."""
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _camera(size: Vector, draws: Draws) -> Camera:
    """Near the wall y = 0, at about eye height, looking into the room and a little down."""
    width, depth, _ = size
    eye = (draws.uniform(0.3, width - 0.3), draws.uniform(0.2, 0.5), draws.uniform(1.0, 1.75))
    aim = (
        draws.uniform(0.2, 0.8) * width,
        draws.uniform(0.6, 0.9) * depth,
        draws.uniform(0.4, 1.1),
    )
    fx, fy, fz = _unit(aim[0] - eye[0], aim[1] - eye[1], aim[2] - eye[2])
    rx, ry, _ = _unit(fy, -fx, 0.0)
    ux, uy, uz = ry * fz, -rx * fz, rx * fy - ry * fx
    c, s = _turn(draws.uniform(-0.035, 0.035))
    right = (c * rx + s * ux, c * ry + s * uy, s * uz)
    up = (c * ux - s * rx, c * uy - s * ry, c * uz)
    return Camera(eye, right, up, (fx, fy, fz), draws.uniform(0.62, 0.95))


def _lights(size: Vector, draws: Draws) -> list[Light]:
    """A main light below the ceiling, mostly with a weaker second one that fills the shadows."""
    lights = []
    strength = 1.0
    for number in range(2 if draws.chance(0.7) else 1):
        x, y = draws.uniform(0.15, 0.85) * size[0], draws.uniform(0.15, 0.85) * size[1]
        warmth, strength = draws.uniform(-0.18, 0.18), strength * draws.uniform(0.3, 1.0)
        colour = (strength * (1 + warmth), strength, strength * (1 - warmth))
        place = (x, y, draws.uniform(2.0, size[2] - 0.1))
        lights.append(Light(place, colour, shadows=number == 0))
    return lights


class _Layout:
    """Places items so that they neither meet each other nor the camera."""

    def __init__(self, scene: Scene, draws: Draws) -> None:
        self.scene, self.draws = scene, draws
        self.taken: list[Rectangle] = []
        self.hung: dict[int, list[tuple[float, float]]] = {0: [], 1: [], 2: []}
        self.tops: list[tuple[Vector, float]] = []
        self.tables: list[Vector] = []

    def _free(self, area: Rectangle) -> bool:
        x0, x1, y0, y1 = area
        eye = self.scene.camera.position
        dx, dy = max(x0 - eye[0], eye[0] - x1, 0.0), max(y0 - eye[1], eye[1] - y1, 0.0)
        width, depth, _ = self.scene.size
        inside = x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= depth
        return (
            inside
            and dx * dx + dy * dy > 0.55**2
            and all(x1 <= a or x0 >= b or y1 <= c or y0 >= d for a, b, c, d in self.taken)
        )

    def _on_wall(self, wall: int, along: float, off: float) -> tuple[Vector, tuple[float, float]]:
        """Place and turn along the back (0), left (1) or right (2) wall, `off` metres from it."""
        width, depth, _ = self.scene.size
        if wall == 0:
            return (along, depth - off, 0.0), (1.0, 0.0)
        if wall == 1:
            return (off, along, 0.0), (0.0, 1.0)
        return (width - off, along, 0.0), (0.0, -1.0)

    def against_wall(self, name: str, tries: int = 6) -> None:
        """Stand an item with its back to a wall."""
        item = FURNITURE[name](self.draws)
        w, d, h = item.size
        for _ in range(tries):
            wall = self.draws.integer(3)
            length = self.scene.size[0 if wall == 0 else 1]
            along = self.draws.uniform(w / 2 + 0.02, max(length - w / 2 - 0.02, w / 2 + 0.03))
            (x, y, z), turn = self._on_wall(wall, along, d / 2 + 0.02)
            rx, ry = (w / 2, d / 2) if wall == 0 else (d / 2, w / 2)
            area = (x - rx, x + rx, y - ry, y + ry)
            span = (along - w / 2, along + w / 2)
            if self._free(area) and (h < 0.8 or self._bare(wall, span)):
                self.taken.append(area)
                self.scene.add(name, item, (x, y, z), turn)
                if h > 0.8:
                    self.hung[wall].append(span)
                if name == "cabinet" and h < 1.1:
                    self.tops.append(((x, y, h), min(w, d) / 2))
                return

    def _bare(self, wall: int, span: tuple[float, float]) -> bool:
        return all(span[1] <= a or span[0] >= b for a, b in self.hung[wall])

    def standing(self, name: str, tries: int = 6) -> None:
        """Stand an item anywhere, at any angle; a chair rather beside a table."""
        item = FURNITURE[name](self.draws)
        w, d, h = item.size
        width, depth, _ = self.scene.size
        for attempt in range(tries):
            turn = _turn(self.draws.uniform(-1, 1)) if self.draws.chance(0.7) else (1.0, 0.0)
            rx = (abs(turn[0]) * w + abs(turn[1]) * d) / 2
            ry = (abs(turn[1]) * w + abs(turn[0]) * d) / 2
            if name == "chair" and self.tables and attempt < tries - 2:
                x, y, _ = self.draws.pick(self.tables)
                x, y = x + self.draws.uniform(-1.2, 1.2), y + self.draws.uniform(-0.9, 0.9)
            else:
                x = self.draws.uniform(rx, max(width - rx, rx + 0.01))
                y = self.draws.uniform(min(0.9, depth / 3), max(depth - ry, 1.0))
            area = (x - rx, x + rx, y - ry, y + ry)
            if self._free(area):
                self.taken.append(area)
                self.scene.add(name, item, (x, y, 0.0), turn)
                if name == "table":
                    self.tables.append((x, y, h))
                    self.tops.append(((x, y, h), min(w, d) / 2))
                return

    def on_top(self, name: str) -> None:
        """Put a small lamp or plant on a table or a low cabinet that has nothing on it yet."""
        if not self.tops:
            self.standing(name)
            return
        (x, y, z), reach = self.tops.pop(self.draws.integer(len(self.tops)))
        item = FURNITURE[name](self.draws).scaled(self.draws.uniform(0.32, 0.45))
        x, y = (c + self.draws.uniform(-0.4, 0.4) * reach for c in (x, y))
        self.scene.add(name, item, (x, y, z), _turn(self.draws.uniform(-1, 1)))

    def lying(self) -> None:
        """Lay a rug; furniture may stand on it."""
        item = FURNITURE["rug"](self.draws)
        rx, ry = (
            min(s / 2, r - 0.01) for s, r in zip(item.size[:2], self.scene.size[:2], strict=True)
        )
        width, depth, _ = self.scene.size
        x = self.draws.uniform(rx, max(width - rx, rx + 0.01))
        y = self.draws.uniform(max(ry, 0.35 * depth), max(0.75 * depth, ry))
        turn = _turn(self.draws.uniform(-0.4, 0.4)) if self.draws.chance(0.5) else (1.0, 0.0)
        self.scene.add("rug", item, (x, y, 0.0), turn)

    def hanging(self, name: str, tries: int = 5) -> None:
        """Hang a picture or set a window where a wall is bare."""
        item = FURNITURE[name](self.draws)
        w, _, h = item.size
        ceiling = self.scene.size[2]
        z = self.draws.uniform(0.8, 1.05) if name == "window" else self.draws.uniform(1.0, 1.5)
        z = min(z, ceiling - 0.1 - h)
        for _ in range(tries):
            wall = self.draws.integer(3)
            length = self.scene.size[0 if wall == 0 else 1]
            start = w / 2 + (0.1 if wall == 0 else 0.25 * length)
            along = self.draws.uniform(start, max(length - w / 2 - 0.1, start + 0.01))
            span = (along - w / 2 - 0.08, along + w / 2 + 0.08)
            if self._bare(wall, span) and span[1] < length:
                self.hung[wall].append(span)
                (x, y, _), turn = self._on_wall(wall, along, 0.0)
                self.scene.add(name, item, (x, y, z), turn)
                return


def build(draws: Draws) -> Scene:
    """Draw a scene."""
    size = (draws.uniform(2.8, 5.5), draws.uniform(3.2, 6.0), draws.uniform(2.35, 3.0))
    camera = _camera(size, draws)
    scene = Scene(size, camera, _lights(size, draws), ambient=draws.uniform(0.06, 0.16))
    wall = scene.add_material()
    accent = scene.add_material() if draws.chance(0.4) else wall
    walls = [wall] * 4
    walls[draws.integer(4)] = accent
    scene.face_materials = [*walls, scene.add_material(), scene.add_material()]

    layout = _Layout(scene, draws)
    for name, chance in (("bed", 0.5), ("sofa", 0.55), ("cabinet", 0.8), ("cabinet", 0.4)):
        if draws.chance(chance):
            layout.against_wall(name)
    for name, chance in (("table", 0.75), ("chair", 0.75), ("chair", 0.5), ("chair", 0.25)):
        if draws.chance(chance):
            layout.standing(name)
    for name in ("lamp", "plant"):
        if draws.chance(0.6):
            layout.standing(name)
        if draws.chance(0.4):
            layout.on_top(name)
    if draws.chance(0.5):
        layout.lying()
    for name, chance in (("window", 0.75), ("window", 0.3), ("picture", 0.7), ("picture", 0.4)):
        if draws.chance(chance):
            layout.hanging(name)
    scene.patterns, scene.materials = draw_materials(draws, scene.material_count)
    return scene
