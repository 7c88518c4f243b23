"""What is drawn at random for a training sample, and the literature's settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mtl_core.errors import ArgumentError

Size: TypeAlias = tuple[int, int]
"""Height and width."""
Fit: TypeAlias = Literal["resize", "pad"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is drawn at random for a training sample; the defaults change nothing.

    Args:
        scale: smallest and largest zoom about the centre, drawn uniformly; a zoom by s divides
            depth by s.
        scale_choices: zooms to draw from instead of `scale`.
        rotate: largest rotation to either side, in degrees; normals turn with the image.
        flip: probability of a left-right flip, which negates the x of normals.
        color: strength in [0, 1] of the photometric distortion. At 1: brightness +-32 of 255,
            contrast and saturation times 0.5 to 1.5, hue +-36 degrees, each with probability one
            half (Liu et al., SSD, ECCV 2016, section 3.6, in the form of ATRC).
        dominance: with ``fit="pad"``, a random crop is drawn again, up to ten times, until the most
            frequent class of the first segmentation task covers less than this share of its known
            pixels. 1: never.
        border: labels of pixels that a rotation or a zoom below 1 uncovers: ``ignore``, or ``zero``
            (class 0, no boundary), which only the survey's protocol does.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    scale_choices: tuple[float, ...] = ()
    rotate: float = 0.0
    flip: float = 0.0
    color: float = 0.0
    dominance: float = 1.0
    border: Literal["ignore", "zero"] = "ignore"

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ArgumentError("scale", "be two positive numbers in ascending order", self.scale)
        if any(choice <= 0 for choice in self.scale_choices):
            raise ArgumentError("scale_choices", "be positive", self.scale_choices)
        if not 0 <= self.rotate <= 180:
            raise ArgumentError("rotate", "lie in [0, 180] degrees", self.rotate)
        for name, value in (("flip", self.flip), ("color", self.color)):
            if not 0 <= value <= 1:
                raise ArgumentError(name, "lie in [0, 1]", value)
        if not 0 < self.dominance <= 1:
            raise ArgumentError("dominance", "lie in (0, 1]", self.dominance)
        if self.border not in ("ignore", "zero"):
            raise ArgumentError("border", "be 'ignore' or 'zero'", self.border)


RECIPES: Mapping[tuple[str, str], Augmentation] = {
    ("survey", "pascal"): Augmentation(scale=(0.75, 1.25), rotate=20.0, flip=0.5, border="zero"),
    ("survey", "nyud"): Augmentation(scale_choices=(1.0, 1.2, 1.5), flip=0.5, border="zero"),
    ("atrc", "pascal"): Augmentation(scale=(0.5, 2.0), flip=0.5, color=1.0, dominance=0.75),
    ("atrc", "nyud"): Augmentation(scale=(0.5, 2.0), flip=0.5, color=1.0, dominance=0.75),
}
"""Training augmentation by protocol and data set: ``survey`` (Vandenhende et al., TPAMI 2021, also
M3ViT) and ``atrc`` (Bruggemann et al., ICCV 2021; InvPT, TaskPrompter, MLoRE)."""

RECIPE_SIZES: Mapping[tuple[str, str], Size] = {
    ("survey", "pascal"): (512, 512),
    ("survey", "nyud"): (480, 640),
    ("atrc", "pascal"): (512, 512),
    ("atrc", "nyud"): (448, 576),
}
"""Height and width of network inputs by protocol and data set."""
