"""From a scene to an image and its exact labels."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mtl_vision.rendering.draws import Draws
from mtl_vision.rendering.furniture import Shape
from mtl_vision.rendering.raycast import Floats, Ints, nearest, occluded
from mtl_vision.rendering.scene import CLASS_NAMES, SALIENT_CLASSES, Scene, build
from mtl_vision.rendering.textures import albedo

VERSION = 1
"""Raised with every change of what is rendered; stored images of another version are not used."""

PRESENT = 0.002
"""Share of the pixels from which a class counts as present."""

SALIENT = 0.004
"""Share of all centre weight that an object needs to be salient."""


@dataclass(frozen=True)
class View:
    """An image and its labels, pixel by pixel.

    Args:
        rgb: (H, W, 3) uint8.
        semseg: (H, W) uint8 indices into `CLASS_NAMES`.
        depth: (H, W) float32 positive metres along the optical axis (z-depth).
        normals: (H, W, 3) float32 unit vectors towards the camera, in its frame: x to the right,
            y up, z backwards.
        saliency: (H, W) uint8, 1 on the salient object.
        presence: (K,) uint8, 1 for classes that cover at least `PRESENT` of the image.
        instance: (H, W) uint8; 0..5 are the room's faces, one each, then one number a thing.
        focal: focal length in pixels, along x and y; the principal point is the image's middle.
    """

    rgb: NDArray[np.uint8]
    semseg: NDArray[np.uint8]
    depth: Floats
    normals: Floats
    saliency: NDArray[np.uint8]
    presence: NDArray[np.uint8]
    instance: NDArray[np.uint8]
    focal: float


@dataclass(frozen=True)
class _Surface:
    """What rays met: place and normal in the room's frame, instance, material, coordinates."""

    place: Floats
    normal: Floats
    instance: Ints
    material: Ints
    u: Floats
    v: Floats


def _rays(scene: Scene, height: int, width: int) -> tuple[Floats, float]:
    """Directions (3, N) through pixel centres, and the focal length.

    Their part along the optical axis is 1, so that the multiple of a ray is the z-depth.
    """
    focal = width / (2 * scene.camera.tangent)
    x = ((np.arange(width) + 0.5 - width / 2) / focal).astype(np.float32)
    y = ((height / 2 - np.arange(height) - 0.5) / focal).astype(np.float32)
    axes = zip(scene.camera.right, scene.camera.up, scene.camera.forward, strict=True)
    rows = [(f + x[None] * np.float32(r) + y[:, None] * np.float32(u)).ravel() for r, u, f in axes]
    return np.stack(rows), focal


def _surface(scene: Scene, rays: Floats, depth: Floats, part: Ints) -> _Surface:
    """Work out the surface at the hits."""
    geometry, part_instance, part_material = scene.tables()
    rows = np.take(np.ascontiguousarray(geometry.T), part, axis=1, mode="clip")
    shape, centre, half, origin, (cosine, sine) = (
        rows[0],
        rows[1:4],
        rows[4:7],
        rows[7:10],
        rows[10:],
    )
    place = np.array(scene.camera.position, np.float32)[:, None] + rays * depth
    x, y, z = place - origin
    local = np.stack((x * cosine + y * sine, y * cosine - x * sine, z))
    relative = (local - centre) / half
    size = np.abs(relative)
    # The axis whose face was met; on a mantle or a sphere it serves the texture only.
    mantle = relative[0] * relative[0] + relative[1] * relative[1]
    upright = size[2] * size[2] > np.where(
        shape == Shape.BOX, np.square(np.maximum(size[0], size[1])), mantle
    )
    second = (size[1] > size[0]) & ~upright
    on = (~(second | upright), second, upright)

    turned = (rays[0] * cosine + rays[1] * sine, rays[1] * cosine - rays[0] * sine, rays[2])
    nx, ny, nz = (
        flag * (1 - 2 * (ray > 0)).astype(np.float32) for flag, ray in zip(on, turned, strict=True)
    )
    curved = np.flatnonzero((shape == Shape.SPHERE) | ((shape == Shape.CYLINDER) & ~upright))
    if curved.size:
        x, y, z = relative[:, curved]
        z = z * (shape[curved] == Shape.SPHERE)
        length = np.sqrt(x * x + y * y + z * z)
        nx[curved], ny[curved], nz[curved] = x / length, y / length, z / length
    normal = np.stack((nx * cosine - ny * sine, nx * sine + ny * cosine, nz))

    inside = part == 0
    beyond = on[0] & (relative[0] > 0) | on[1] & (relative[1] > 0) | on[2] & (relative[2] > 0)
    face = 2 * (on[1] + 2 * on[2].astype(np.int64)) + beyond
    return _Surface(
        place=place,
        normal=normal,
        instance=np.where(inside, face, part_instance.take(part, mode="clip")),
        material=np.where(
            inside, np.array(scene.face_materials).take(face), part_material.take(part, mode="clip")
        ),
        u=np.where(on[0], local[1], local[0]),
        v=np.where(upright, local[1], local[2]),
    )


def _shade(scene: Scene, rays: Floats, depth: Floats, surface: _Surface, focal: float) -> Floats:
    """Linear radiance (3, N): ambient light dimmed near walls, point lights, highlights."""
    length = np.sqrt(rays[0] * rays[0] + rays[1] * rays[1] + rays[2] * rays[2])
    view = rays / length
    nx, ny, nz = surface.normal
    facing = np.abs(view[0] * nx + view[1] * ny + view[2] * nz)
    footprint = depth / (np.float32(focal) * np.maximum(facing, np.float32(0.15)))
    colour, gloss = albedo(
        scene.materials, scene.patterns, surface.material,
        surface.u, surface.v, footprint,
    )  # fmt: skip
    ambient = scene.ambient * (1 + np.float32(0.35) * nz)
    for axis in range(3):
        gap = np.minimum(surface.place[axis], np.float32(scene.size[axis]) - surface.place[axis])
        near = 1 / (1 + gap * gap * np.float32(9))
        ambient = ambient * (1 - np.float32(0.45) * near)
    radiance: Floats = colour * ambient
    for light in scene.lights:
        # Rays from the light to the surface: all lights share the ray caster with the camera.
        way = surface.place - np.array(light.position, np.float32)[:, None]
        square = way[0] * way[0] + way[1] * way[1] + way[2] * way[2]
        distance = np.sqrt(square)
        cosine = -(way[0] * nx + way[1] * ny + way[2] * nz) / distance
        strength = np.maximum(cosine, np.float32(0)) / (np.float32(0.4) + square)
        if light.shadows:
            lit = np.flatnonzero(cosine > 0)
            rays_to = np.stack([w.take(lit) for w in way])
            strength[lit] *= ~occluded(scene.bodies, light.position, rays_to)
        hx, hy, hz = (w / distance + v for w, v in zip(way, view, strict=True))
        power = np.maximum(-(hx * nx + hy * ny + hz * nz), np.float32(0))
        power /= np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-6))
        for _ in range(5):
            power *= power
        highlight = power * gloss * np.float32(4)
        for channel in range(3):
            radiance[channel] += (colour[channel] + highlight) * strength * light.colour[channel]
    return radiance


def _expose(radiance: Floats, draws: Draws, height: int, width: int) -> NDArray[np.uint8]:
    """The camera: white balance, vignette, automatic exposure, soft shoulder, gamma 2 and noise."""
    tint = [draws.uniform(0.85, 1.15) for _ in range(3)]
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / np.float32(width) - np.float32(0.5)
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / np.float32(height) - np.float32(
        0.5
    )
    fall = 1 - np.float32(draws.uniform(0, 0.7)) * (x * x + (y * y)[:, None])
    image = radiance * np.array(tint, np.float32)[:, None] * fall.ravel()
    # A sum of integers does not depend on the order of summation.
    total = int((image * np.float32(65536)).astype(np.int32).sum(dtype=np.int64))
    mean = max(total / (65536 * image.size), 1e-4)
    image = image * (draws.uniform(0.22, 0.42) / mean)
    image = np.sqrt(image * (1 + image / 16) / (1 + image * np.float32(0.6)))
    # Four bytes add up to a bell of mean 510 and deviation 148.
    bell = draws.bytes(4 * image.size).reshape(4, *image.shape).sum(0, dtype=np.uint16)
    image *= np.float32(255)
    image += (bell.astype(np.float32) - 510) * np.float32(draws.uniform(0.004, 0.022) * 255 / 148)
    image = np.clip(image + np.float32(0.5), np.float32(0), np.float32(255)).astype(np.uint8)
    pixels: NDArray[np.uint8] = np.stack(list(image), axis=-1).reshape(height, width, 3)
    return pixels


def salient(instance: NDArray[np.uint8], instance_class: list[int]) -> NDArray[np.uint8]:
    """Mask (H, W) of the standing thing that fills most of the picture's middle.

    Every pixel weighs 1 - r^2, where r is 0 in the middle and 1 on the ellipse that touches the
    borders, and nothing outside. The thing with the largest weight of visible pixels wins, the
    lower number on a tie; below `SALIENT` of all weight the mask is empty.
    """
    weight, total = _centre(*instance.shape)
    score = np.bincount(instance.ravel(), weight, minlength=len(instance_class)).tolist()
    score = [s if c in SALIENT_CLASSES else 0.0 for s, c in zip(score, instance_class, strict=True)]
    best = max(range(len(score)), key=score.__getitem__)
    if score[best] < SALIENT * total:
        return np.zeros(instance.shape, np.uint8)
    mask: NDArray[np.uint8] = (instance == best).astype(np.uint8)
    return mask


@lru_cache(maxsize=4)
def _centre(height: int, width: int) -> tuple[NDArray[np.float64], float]:
    """Weight of every pixel (N,), and their sum."""
    y = (2 * np.arange(height)[:, None] + 1 - height) / height
    x = (2 * np.arange(width) + 1 - width) / width
    weight = np.maximum(1 - y * y - x * x, 0).ravel()
    return weight, sum(weight.tolist())


def render(draws: Draws, height: int, width: int) -> View:
    """Draw a scene and look at it."""
    scene = build(draws)
    rays, focal = _rays(scene, height, width)
    position = np.array(scene.camera.position, np.float32)[:, None]
    size = np.array(scene.size, np.float32)[:, None]
    depth = ((np.where(rays > 0, size, np.float32(0)) - position) / (rays + np.float32(1e-12))).min(
        0
    )
    windows = scene.camera.windows(scene.bodies, height, width)
    part = nearest(
        scene.bodies,
        scene.camera.position,
        rays.reshape(3, height, width),
        windows,
        depth.reshape(height, width),
    ).ravel()
    surface = _surface(scene, rays, depth, part)
    rgb = _expose(_shade(scene, rays, depth, surface, focal), draws, height, width)

    shape = (height, width)
    instance = surface.instance.astype(np.uint8).reshape(shape)
    semseg = np.array(scene.instance_class, np.uint8)[instance]
    nx, ny, nz = surface.normal
    camera = scene.camera
    axes = (camera.right, camera.up, tuple(-f for f in camera.forward))
    normals = np.stack([nx * a + ny * b + nz * c for a, b, c in axes], axis=-1)
    counts = np.bincount(semseg.ravel(), minlength=len(CLASS_NAMES))
    return View(
        rgb=rgb,
        semseg=semseg,
        depth=depth.reshape(shape),
        normals=normals.reshape(*shape, 3),
        saliency=salient(instance, scene.instance_class),
        presence=(counts >= PRESENT * semseg.size).astype(np.uint8),
        instance=instance,
        focal=focal,
    )
