"""Geometry and colour of dense samples: one sampling for the image and all of its maps.

The only file that imports albumentations. All parameters are drawn here from the generator handed
in, so that a sample depends on nothing else.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, Self, TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mtl_core.data.batch import Sample
from mtl_core.errors import ArgumentError, SampleSizeError
from mtl_core.tasks.base import Task
from mtl_vision.data.augmentation import RECIPE_SIZES, RECIPES, Augmentation, Fit, Size
from mtl_vision.data.geometry import Warp
from mtl_vision.tasks.boundary import BoundaryDetection
from mtl_vision.tasks.dense import IGNORE
from mtl_vision.tasks.depth import DepthEstimation
from mtl_vision.tasks.normals import SurfaceNormals
from mtl_vision.tasks.segmentation import HumanParts, SemanticSegmentation

# Importing albumentations asks the network for a newer version unless this is set.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
from albumentations.augmentations.pixel import functional as pixel

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Array: TypeAlias = NDArray[Any]


class DenseTransform:
    """Turns a sample of arrays into network tensors, augmented in training.

    Input: ``inputs`` (H, W, 3) uint8 RGB; dense targets as arrays: labels and boundaries (H, W),
        depth
    (H, W) in metres, normals (H, W, 3). Output: ``inputs`` (3, h, w) float32, normalised; maps
    (h, w), normals (3, h, w). Targets of tasks that are not dense pass untouched (class presence
    stays that of the whole image); targets of undeclared tasks are left out.

    The image is resampled linearly (``interpolation="cubic"``: cubically, and normals too), maps by
    nearest neighbour. Uncovered pixels get the mean colour and no label: 255, depth 0, zero
    normals, `valid` false. Boundaries that were resampled are thinned again, and survive a
    reduction because they are widened by its factor before. Only the random zoom divides depth:
    resizing to `size` is a change of resolution.

    Args:
        tasks: the declared tasks; their classes say how a map follows geometry.
        size: height and width of the output; None keeps those of the image.
        scale: see `Augmentation`, likewise `scale_choices`, `rotate`, `flip`, `color`, `dominance`,
            `border`.
        mean: of the RGB channels in [0, 1], subtracted.
        std: of the RGB channels in [0, 1], divided by.
        train: whether to augment; all of the above but the size and the statistics is ignored
            otherwise.
        fit: how an image gets to `size`. ``resize`` stretches it (after the zoom about its centre).
            ``pad`` keeps its resolution: random crop where larger (training only), centred padding
            where smaller.
        interpolation: ``linear`` or ``cubic``.
        normals_y: direction of the second component of normals in the image, ``down`` (as rows
            count) or ``up``. Matters only for rotations.

    Raises:
        SampleSizeError: when called, if a map and its image differ in size.
        ArgumentError: when called, if an image is larger than `size` in evaluation with
            ``fit="pad"``.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        *,
        size: Size | None = None,
        scale: tuple[float, float] = (1.0, 1.0),
        scale_choices: tuple[float, ...] = (),
        rotate: float = 0.0,
        flip: float = 0.0,
        color: float = 0.0,
        dominance: float = 1.0,
        border: Literal["ignore", "zero"] = "ignore",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        train: bool,
        fit: Fit = "resize",
        interpolation: Literal["linear", "cubic"] = "linear",
        normals_y: Literal["down", "up"] = "down",
    ) -> None:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ArgumentError("size", "be a positive height and width, or null", size)
        if fit not in ("resize", "pad"):
            raise ArgumentError("fit", "be 'resize' or 'pad'", fit)
        if interpolation not in ("linear", "cubic"):
            raise ArgumentError("interpolation", "be 'linear' or 'cubic'", interpolation)
        if normals_y not in ("down", "up"):
            raise ArgumentError("normals_y", "be 'down' or 'up'", normals_y)
        if min(std) <= 0:
            raise ArgumentError("std", "be positive", std)
        drawn = Augmentation(
            scale=scale,
            scale_choices=scale_choices,
            rotate=rotate,
            flip=flip,
            color=color,
            dominance=dominance,
            border=border,
        )
        self.tasks = dict(tasks)
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.augmentation = drawn if train else Augmentation()
        self.train, self.fit = train, fit
        self.interpolation, self.normals_y = interpolation, normals_y
        self.mean, self.std = mean, std
        self._fill = tuple(round(255 * value) for value in mean)
        self._offset = (np.asarray(mean) / np.asarray(std)).astype(np.float32).reshape(3, 1, 1)
        self._factor = (1 / (255 * np.asarray(std))).astype(np.float32).reshape(3, 1, 1)
        self._smooth = cv2.INTER_CUBIC if interpolation == "cubic" else cv2.INTER_LINEAR

    @classmethod
    def from_augmentation(
        cls,
        tasks: Mapping[str, Task],
        augmentation: Augmentation,
        *,
        size: Size | None,
        train: bool,
        fit: Fit = "resize",
        interpolation: Literal["linear", "cubic"] = "linear",
        normals_y: Literal["down", "up"] = "down",
    ) -> Self:
        """The same from a record, as data modules hold it."""
        return cls(
            tasks,
            size=size,
            train=train,
            fit=fit,
            interpolation=interpolation,
            normals_y=normals_y,
            **asdict(augmentation),
        )

    @classmethod
    def recipe(
        cls,
        tasks: Mapping[str, Task],
        protocol: Literal["survey", "atrc"],
        dataset: Literal["pascal", "nyud"],
        *,
        train: bool,
        size: Size | None = None,
        augmentation: Augmentation | None = None,
    ) -> Self:
        """A published transform: `RECIPES` and `RECIPE_SIZES`, each of which may be replaced.

        ``survey`` stretches every image to its size, images and normals cubically. ``atrc`` crops
        and pads in training; in evaluation it pads without resampling.
        """
        if (protocol, dataset) not in RECIPES:
            raise ArgumentError("recipe", f"be one of {sorted(RECIPES)}", (protocol, dataset))
        return cls.from_augmentation(
            tasks,
            augmentation or RECIPES[protocol, dataset],
            size=size or RECIPE_SIZES[protocol, dataset],
            train=train,
            fit="resize" if protocol == "survey" else "pad",
            interpolation="cubic" if protocol == "survey" else "linear",
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Augment, resize, normalise. All randomness comes from `rng`."""
        image = np.asarray(sample["inputs"])
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ArgumentError(
                "inputs", "be a (H, W, 3) uint8 image", (image.shape, str(image.dtype))
            )
        targets = {
            name: sample["targets"][name] for name in self.tasks if name in sample["targets"]
        }
        maps = {n: np.asarray(v) for n, v in targets.items() if self.tasks[n].dense}
        masks = {n: np.asarray(v) for n, v in sample.get("valid", {}).items() if n in maps}
        for name, array in (*maps.items(), *masks.items()):
            if array.shape[:2] != image.shape[:2]:
                key = sample.get("key", "")
                raise SampleSizeError(name, array.shape[:2], image.shape[:2], key)
        drawn = self.augmentation
        flip = drawn.flip > 0 and rng.random() < drawn.flip
        if drawn.color > 0:
            image = distort_colors(image, drawn.color, rng)
        warp = self._draw_warp(image.shape[:2], maps, rng)

        result = sample.copy()
        result["inputs"] = self._image_tensor(
            _flip(warp.smooth(image, self._fill, self._smooth), flip)
        )
        result["targets"] = {
            name: self._map(self.tasks[name], maps[name], warp, flip) if name in maps else value
            for name, value in targets.items()
        }
        if "valid" in sample:
            moved = {
                n: _tensor(_flip(warp.nearest(m.astype(np.uint8), 0), flip) > 0)
                for n, m in masks.items()
            }
            result["valid"] = {**sample["valid"], **moved}
        return result

    def operations(self) -> dict[str, Any]:
        """What evaluation does to an image file, as JSON, for runtimes without this package.

        Returns:
            ``operations`` in their order, up to values in [0, 1] in channels, rows, columns, and
            ``normalization``, which exported graphs hold themselves.

        Raises:
            ArgumentError: this is a training transform.
        """
        if self.train:
            raise ArgumentError("train", "be false: augmentation is no preprocessing", self.train)
        steps: list[dict[str, Any]] = [{"op": "decode", "colours": "rgb"}]
        if self.size is not None and self.fit == "resize":
            kernels = {"kernel": self.interpolation, "reduce": "area"}
            steps.append({"op": "resize", "size": list(self.size), **kernels, "keep_ratio": False})
        elif self.size is not None:
            fill = {"fill": list(self._fill), "position": "center"}
            steps.append({"op": "pad", "size": list(self.size), **fill})
        steps += [{"op": "scale", "factor": 1 / 255}, {"op": "layout", "order": "chw"}]
        statistics = {"mean": list(map(float, self.mean)), "std": list(map(float, self.std))}
        return {
            "kind": "image",
            "operations": steps,
            "normalization": {**statistics, "in_graph": True},
        }

    def restore(self, prediction: Tensor, size: Size) -> Tensor:
        """Bring a prediction of the evaluation transform back to its image's original size.

        Batches do not carry original sizes; a writer reads them from the image files that the keys
        name (`mtl_vision.data.files.image_size`).

        Args:
            prediction: (C, h, w) or (h, w), float (resampled bilinearly) or labels (by nearest
                neighbour).
            size: the original height H and width W.

        Returns:
            (C, H, W) or (H, W): padding cut off, or resampled where the image was stretched.
        """
        height, width = prediction.shape[-2:]
        if self.fit == "pad" and height >= size[0] and width >= size[1]:
            top, left = (height - size[0]) // 2, (width - size[1]) // 2
            return prediction[..., top : top + size[0], left : left + size[1]]
        if (height, width) == tuple(size):
            return prediction
        maps = prediction.reshape(1, -1, height, width)
        if prediction.is_floating_point():
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        else:
            maps = F.interpolate(maps.double(), size=size, mode="nearest-exact").to(
                prediction.dtype
            )
        return maps.reshape(*prediction.shape[:-2], *size)

    def _draw_warp(self, shape: Size, maps: Mapping[str, Array], rng: np.random.Generator) -> Warp:
        drawn, size = self.augmentation, self.size or shape
        zoom = 1.0
        if drawn.scale_choices:
            zoom = float(rng.choice(drawn.scale_choices))
        elif drawn.scale != (1.0, 1.0):
            zoom = float(rng.uniform(*drawn.scale))
        # Whole thousandths: what is nearly the identity is the identity.
        angle = round(float(rng.uniform(-drawn.rotate, drawn.rotate)), 3) if drawn.rotate else 0.0
        fill = IGNORE if drawn.border == "ignore" else 0
        if self.fit == "resize":
            factors = (zoom * size[0] / shape[0], zoom * size[1] / shape[1])
            return Warp(shape, size, zoom, angle, factors, size, (0, 0), fill)
        canvas = (max(1, round(zoom * shape[0])), max(1, round(zoom * shape[1])))
        factors = (canvas[0] / shape[0], canvas[1] / shape[1])
        if not self.train and (canvas[0] > size[0] or canvas[1] > size[1]):
            raise ArgumentError("size", f"be at least the image's {shape} where fit is 'pad'", size)
        labels = next((maps[n] for n in maps if _is_segmentation(self.tasks[n])), None)
        for _ in range(10):
            corner = (_place(canvas[0], size[0], rng), _place(canvas[1], size[1], rng))
            warp = Warp(shape, size, zoom, angle, factors, canvas, corner, fill)
            if drawn.dominance == 1 or labels is None:
                break
            known = warp.nearest(_plain(labels), IGNORE)
            known = known[known != IGNORE].astype(np.int64)
            if known.size and np.bincount(known).max() < drawn.dominance * known.size:
                break
        return warp

    def _image_tensor(self, image: Array) -> Tensor:
        planes = image.transpose(2, 0, 1).astype(np.float32, order="C")
        planes *= self._factor
        planes -= self._offset
        return torch.from_numpy(planes)

    def _map(self, task: Task, array: Array, warp: Warp, flip: bool) -> Tensor:
        """One target after geometry, by the rule of its kind."""
        match task:
            case SurfaceNormals():
                array = self._normals(array, warp)
                if flip:
                    array = _flip(array, flip) * np.asarray((-1, 1, 1), np.float32)
                return _tensor(array.transpose(2, 0, 1))
            case DepthEstimation():
                depth = warp.nearest(array.astype(np.float32), 0)
                return _tensor(_flip(depth / np.float32(warp.zoom), flip))
            case BoundaryDetection():
                boundary = warp.boundary(_plain(array))
                return _tensor(_flip(boundary.astype(np.uint8), flip))
            case _:
                labels = warp.nearest(_plain(array), warp.label_fill)
                stored = np.uint8 if array.dtype == np.bool_ else array.dtype
                return _tensor(_flip(labels.astype(stored), flip))

    def _normals(self, array: Array, warp: Warp) -> Array:
        normals = array.astype(np.float32)
        if warp.identity:
            return normals
        if self.interpolation == "cubic":
            known = warp.nearest((normals != 0).any(2).astype(np.uint8), 0) > 0
            normals = warp.smooth(normals, (0, 0, 0), self._smooth)
            length = np.linalg.norm(normals, axis=2, keepdims=True)
            normals = np.where(
                known[..., None] & (length > 0.1), normals / np.maximum(length, 0.1), 0
            )
            normals = normals.astype(np.float32)
        else:
            normals = warp.nearest(normals, 0)
        if warp.angle:
            # Positive angles turn the image clockwise as displayed, that is from x to a downward y.
            sign = 1.0 if self.normals_y == "down" else -1.0
            cos, sin = np.cos(np.radians(warp.angle)), sign * np.sin(np.radians(warp.angle))
            turn = np.asarray([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], np.float32)
            normals = normals @ turn
        return normals


def distort_colors(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Photometric distortion of an image, (H, W, 3) uint8, as described in `Augmentation`."""
    brightness = 32 * strength * rng.uniform(-1, 1) if rng.random() < 0.5 else 0.0
    contrast = 1 + 0.5 * strength * rng.uniform(-1, 1) if rng.random() < 0.5 else 1.0
    saturation = 1 + 0.5 * strength * rng.uniform(-1, 1) if rng.random() < 0.5 else 1.0
    hue = 0.1 * strength * rng.uniform(-1, 1) if rng.random() < 0.5 else 0.0
    late = rng.random() < 0.5  # contrast before or after saturation and hue
    image = _linear_tone(image, 1.0 if late else contrast, brightness)
    image = pixel.adjust_saturation_torchvision(image, saturation)
    image = pixel.adjust_hue_torchvision(image, hue)
    return _linear_tone(image, contrast if late else 1.0, 0.0)


def _linear_tone(image: Array, contrast: float, brightness: float) -> Array:
    if contrast == 1 and brightness == 0:
        return image
    table = np.clip(contrast * (np.arange(256) + brightness), 0, 255).round().astype(np.uint8)
    return cv2.LUT(image, table)


def _place(length: int, size: int, rng: np.random.Generator) -> int:
    """Start of a window: anywhere inside what is longer, centred around what is shorter."""
    return int(rng.integers(length - size + 1)) if length > size else -((size - length) // 2)


def _is_segmentation(task: Task) -> bool:
    return isinstance(task, SemanticSegmentation) and not isinstance(task, HumanParts)


def _flip(array: Array, flip: bool) -> Array:
    return array[:, ::-1] if flip else array


def _plain(array: Array) -> Array:
    """A label map in a type that OpenCV resamples exactly."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    return array if array.dtype in (np.uint8, np.uint16, np.int16) else array.astype(np.float64)


def _tensor(array: Array) -> Tensor:
    """A tensor with memory of its own (a data set may keep the array)."""
    if array.dtype == np.uint16:
        array = array.astype(np.int32)
    return torch.from_numpy(np.array(array, order="C"))
