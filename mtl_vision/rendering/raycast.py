"""Where rays from one point meet a scene: exact intersections with convex solids, vectorised.

Only sums, products, quotients, square roots and comparisons are used, which IEEE 754 fixes to the
last bit, and no matrix product or trigonometry: results do not depend on the machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mtl_vision.rendering.furniture import Vector

Floats: TypeAlias = NDArray[Any]
Ints = NDArray[np.int64]

Window = tuple[slice, slice]

_FAR = np.float32(1e9)
_ZERO = np.float32(0)
_NONE = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Local:
    """Rays in the frame of a body: start, directions and their reciprocals, each by axis."""

    start: Vector
    directions: tuple[Floats, ...]
    inverse: tuple[Floats, ...]

    def take(self, chosen: Ints) -> "Local":
        """Some of the rays."""
        return Local(
            self.start,
            tuple(ray.take(chosen, mode="clip") for ray in self.directions),
            tuple(ray.take(chosen, mode="clip") for ray in self.inverse),
        )


@dataclass(frozen=True)
class Body:
    """An item at its place: solids in a frame that is turned about z.

    Args:
        origin: of its frame, in the room's, metres.
        cosine: of its turn.
        sine: of its turn.
        boxes: (K, 6) centres and half extents, likewise `cylinders` and `spheres`.
        first: index of its first part among all parts of the scene: boxes, cylinders, spheres.
        box: (6,) centre and half extents of the box around it, in its frame.
        corners: (8, 3) of that box, in the room's frame.
        top: its height above the floor.
        middle: centre of that box.
        radius: of the ball around that box.
        casts: whether it throws a shadow; what lies flat on a floor or wall need not.
    """

    origin: Vector
    cosine: float
    sine: float
    boxes: Floats
    cylinders: Floats
    spheres: Floats
    first: int
    box: Floats
    corners: NDArray[np.float64]
    top: float
    middle: Vector
    radius: float
    casts: bool

    def shaded(self, start: Vector, rays: Floats, lengths: Floats) -> Ints:
        """Indices of the rays (3, N), of squared lengths (N,), that may end in its shadow.

        They meet the ball around it and, if they start above it, end below its top.
        """
        x, y, z = (m - s for m, s in zip(self.middle, start, strict=True))
        outside = x * x + y * y + z * z - self.radius * self.radius
        below = rays[2] < (self.top - start[2] if start[2] > self.top else 1e3)
        if outside <= 0:
            return np.flatnonzero(below)
        along = np.maximum(rays[0] * x + rays[1] * y + rays[2] * z, _ZERO)
        return np.flatnonzero((along * along > lengths * outside) & below)

    def local(self, start: Vector, rays: Sequence[Floats]) -> Local:
        """Rays, given by x, y and z of their directions, in the body's own frame."""
        c, s = self.cosine, self.sine
        x, y, z = (a - b for a, b in zip(start, self.origin, strict=True))
        turned = (rays[0] * c + rays[1] * s, rays[1] * c - rays[0] * s, rays[2])
        # The tiny shift keeps quotients finite; where it would matter a ray is parallel to a face.
        inverse = tuple(1 / (ray + np.float32(1e-12)) for ray in turned)
        return Local((x * c + y * s, y * c - x * s, z), turned, inverse)

    def bounds(self, rays: Local) -> tuple[Floats, Floats]:
        """Where rays enter and leave the box around the body."""
        return _slabs(self.box[None], rays)

    def spans(self, rays: Local) -> tuple[Floats, Floats]:
        """Where rays enter and leave each part, (K, ...) multiples; missed if they leave first."""
        parts = [_slabs(self.boxes, rays)] if len(self.boxes) else []
        if len(self.cylinders):
            parts.append(_rounds(self.cylinders, rays, upright=True))
        if len(self.spheres):
            parts.append(_rounds(self.spheres, rays, upright=False))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([near for near, _ in parts]), np.concatenate(
            [far for _, far in parts]
        )


def _slabs(boxes: Floats, rays: Local) -> tuple[Floats, Floats]:
    """Spans (K, ...) of boxes (K, 6)."""
    columns = boxes.reshape(*boxes.shape, *([1] * rays.directions[0].ndim))
    near: Floats = _NONE
    far: Floats = _NONE
    for axis, steps in enumerate(rays.inverse):
        middle = (columns[:, axis] - np.float32(rays.start[axis])) * steps
        half = columns[:, 3 + axis] * np.abs(steps)
        low = middle - half
        middle += half
        near = low if axis == 0 else np.maximum(near, low, out=near)
        far = middle if axis == 0 else np.minimum(far, middle, out=far)
    return near, far


def _rounds(solids: Floats, rays: Local, *, upright: bool) -> tuple[Floats, Floats]:
    """Spans (K, ...) of spheres or, if `upright`, cylinders (K, 6)."""
    dx, dy, dz = rays.directions
    columns = solids.reshape(*solids.shape, *([1] * dx.ndim))
    x, y, z = (columns[:, axis] - np.float32(rays.start[axis]) for axis in range(3))
    radius = columns[:, 3]
    squares = dx * dx + dy * dy
    along = dx * x
    along += dy * y
    rest = x * x + y * y - radius * radius
    if not upright:
        squares += dz * dz
        along += dz * z
        rest += z * z
    squares += np.float32(1e-12)
    inverse = 1 / squares
    inside = along * along
    inside -= squares * rest
    missed = inside <= 0
    root = np.sqrt(np.maximum(inside, _ZERO, out=inside), out=inside)
    near, far = (along - root) * inverse, (along + root) * inverse
    near += missed * _FAR
    if upright:
        slab, middle = np.abs(rays.inverse[2]) * columns[:, 5], rays.inverse[2] * z
        near = np.maximum(near, middle - slab, out=near)
        far = np.minimum(far, middle + slab, out=far)
    return near, far


def nearest(
    bodies: list[Body], start: Vector, rays: Floats, windows: list[Window], limit: Floats
) -> Ints:
    """First hit of each ray of an image.

    Args:
        bodies: what may be hit.
        start: common origin of the rays.
        rays: (3, H, W) directions, of any length.
        windows: rows and columns that each body may cover, by body.
        limit: (H, W) multiple of the ray at which it ends (on a wall); lowered in place to the
            first hit.

    Returns:
        The part hit (H, W), 0 where nothing comes before the limit.
    """
    part = np.zeros(limit.shape, np.int64)
    for body, window in zip(bodies, windows, strict=True):
        reach, number = limit[window], part[window]
        if not reach.size:
            continue
        enter, leave = body.spans(body.local(start, [ray[window] for ray in rays]))
        hit = (enter < leave) & (enter > np.float32(1e-3))
        for k in range(len(enter)):
            closer = hit[k] & (enter[k] < reach)
            np.copyto(reach, enter[k], where=closer)
            np.copyto(number, body.first + k, where=closer)
    return part


def occluded(bodies: list[Body], start: Vector, rays: Floats) -> NDArray[np.bool_]:
    """Whether something stands between `start` and 0.2 % before the end of each ray (3, N)."""
    blocked = np.zeros(rays.shape[1], np.bool_)
    lengths = rays[0] * rays[0] + rays[1] * rays[1] + rays[2] * rays[2]
    for body in bodies:
        if not body.casts:
            continue
        chosen = body.shaded(start, rays, lengths)
        if not chosen.size:
            continue
        local = body.local(start, [ray.take(chosen, mode="clip") for ray in rays])
        if len(body.boxes) + len(body.cylinders) + len(body.spheres) > 2:
            enter, leave = body.bounds(local)
            kept = np.flatnonzero((enter[0] < leave[0]) & (leave[0] > 0) & (enter[0] < 1))
            chosen, local = chosen[kept], local.take(kept)
        enter, leave = body.spans(local)
        blocked[chosen] |= ((enter < leave) & (leave > 0) & (enter < np.float32(0.998))).any(0)
    return blocked
