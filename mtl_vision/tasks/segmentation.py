"""Semantic segmentation and human parts."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from mtl_core.errors import ArgumentError
from mtl_vision.metrics.segmentation import Absent, MeanIoU, PixelAccuracy
from mtl_vision.palette import palette
from mtl_vision.tasks.dense import IGNORE, DenseTask


@dataclass(frozen=True, kw_only=True)
class SemanticSegmentation(DenseTask):
    """One of K classes per pixel.

    Shapes: prediction (B, K, h, w) logits; target (B, H, W) uint8 or int64 in 0..K-1, 255 =
    ignored; activated (B, K, H, W) probabilities.

    The loss is cross-entropy, averaged over the valid pixels of the batch, in every protocol. The
    primary metric is the mIoU over the whole data set. Under ``survey`` and ``atrc`` a class that
    occurs neither in labels nor in predictions counts 0; ``libmtl`` (NYUv2 with 13 classes) has 0/0
    there, and such a class is left out of the mean.

    Args:
        num_classes: K, 2 to 255.
        class_names: names of the K classes, for tables and pictures.
        palette: K colours (red, green, blue) in 0..255 for pictures; default: chosen to be told
            apart, also by the colour-blind.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.num_classes <= IGNORE:
            raise ArgumentError("num_classes", f"lie in 2..{IGNORE}", self.num_classes)
        for argument in ("class_names", "palette"):
            value = getattr(self, argument)
            if value and len(value) != self.num_classes:
                raise ArgumentError(argument, f"hold {self.num_classes} entries", value)
        for color in self.palette:
            if len(color) != 3 or not all(0 <= part <= 255 for part in color):
                raise ArgumentError("palette", "hold triples of values in 0..255", color)

    @property
    def out_channels(self) -> int:
        """K."""
        return self.num_classes

    @property
    def primary(self) -> str:
        """Mean intersection over union, in [0, 1]."""
        return "miou"

    def valid(self, target: Tensor) -> Tensor:
        """Pixels that are not 255, (B, H, W)."""
        return target != IGNORE

    def element_loss(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Cross-entropy of every pixel, (B, H, W)."""
        # One row a pixel: the two-dimensional kernel has no deterministic form on CUDA.
        rows = prediction.float().movedim(1, -1).reshape(-1, self.num_classes)
        loss = F.cross_entropy(rows, target.long().flatten(), ignore_index=IGNORE, reduction="none")
        return loss.view(target.shape)

    def metrics(self) -> dict[str, Metric]:
        """``miou`` and ``pixel_accuracy`` over all valid pixels of the data set, in [0, 1]."""
        absent: Absent = "skip" if self.protocol == "libmtl" else "zero"
        return {
            "miou": MeanIoU(self.num_classes, absent=absent),
            "pixel_accuracy": PixelAccuracy(self.num_classes),
        }

    def activate(self, prediction: Tensor) -> Tensor:
        """Class probabilities (B, K, H, W)."""
        return prediction.softmax(1)

    def readout(self) -> dict[str, Any]:
        """Probabilities (K, H, W) of named classes, and their colours."""
        colours = self.palette or palette(self.num_classes)
        return {
            "kind": "segmentation",
            "activation": "softmax",
            "unit": "probability",
            "classes": list(self.class_names or map(str, range(self.num_classes))),
            "palette": [list(colour) for colour in colours],
        }

    def check(self, target: Tensor) -> None:
        """Targets must be integers in 0..K-1, or 255."""
        self._check_integer_map(target, self.num_classes)


@dataclass(frozen=True, kw_only=True)
class HumanParts(SemanticSegmentation):
    """Background and parts of the human body per pixel, scored only on images that show people.

    As `SemanticSegmentation`, but an image none of whose pixels carries a part is ignored entirely,
    by loss and metrics: both lines of the literature mark such images as unlabelled. LibMTL does
    not define the task.

    Source: the dense-prediction survey (Vandenhende et al. 2021); parts from PASCAL-Part (Chen et
    al. 2014).

    Args:
        num_classes: background and parts.
        class_names: their names.
    """

    protocols: ClassVar[tuple[str, ...]] = ("survey", "atrc")

    num_classes: int = 7
    class_names: tuple[str, ...] = (
        "background",
        "head",
        "torso",
        "upper arm",
        "lower arm",
        "upper leg",
        "lower leg",
    )

    def valid(self, target: Tensor) -> Tensor:
        """Pixels that are not 255, of images with at least one pixel of a part, (B, H, W)."""
        known = target != IGNORE
        people = ((target > 0) & known).flatten(1).any(1)
        return known & people[:, None, None]
