"""`PascalContext`: PASCAL-Context for five dense tasks."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io
from numpy.typing import NDArray

from mtl_core.data.batch import Sample
from mtl_core.data.datamodule import Split, Transform
from mtl_core.errors import SampleSizeError, UnreadableFileError
from mtl_core.tasks.base import Task
from mtl_core.types import TaskName
from mtl_vision.data.augmentation import Augmentation, Size
from mtl_vision.data.benchmark import BenchmarkDataModule
from mtl_vision.data.boundaries import laplacian_boundaries
from mtl_vision.data.files import read_binary, read_image, read_labels, read_normals
from mtl_vision.data.samples import FileSamples, read_names
from mtl_vision.data.transforms import DenseTransform

PERSON = 15
"""Index of the class person in the part annotations."""

_SIDED = {
    **{"ear": 1, "eye": 1, "ebrow": 1},
    **{"uarm": 3, "larm": 4, "hand": 4},
    **{"uleg": 5, "lleg": 6, "foot": 6},
}
PARTS: Mapping[str, int] = {
    **{"head": 1, "hair": 1, "nose": 1, "mouth": 1, "neck": 2, "torso": 2},
    **{side + name: part for side in "lr" for name, part in _SIDED.items()},
}
"""Class of each annotated part: head, torso, upper arm, lower arm, upper leg, lower leg."""

# fmt: off
NORMALS_CLASSES = (
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50,
    51, 53, 55, 56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104,
    105, 107, 111, 113, 115, 122, 124, 135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172,
    174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215, 216, 219, 220, 223, 225, 228, 230,
    232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272, 273, 275, 281,
    283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319, 323,
    329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383,
    384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432,
    440, 441, 442, 443, 444, 446, 454, 457,
)
# fmt: on
"""Where distilled normals are trusted (Maninis et al., CVPR 2019).

Indices among the 459 Context classes of those whose name is also one of NYUDv2's 894, "unknown"
apart, and of tvmonitor.
"""


class PascalContextSamples(FileSamples):
    """Samples of one list of names.

    Args:
        root: folder of the data set.
        names: of the samples.
        tasks: those to read, see `PascalContext`.
        cache: keep decoded samples in memory.
    """

    def __init__(
        self, root: Path, names: list[str], tasks: Collection[str], *, cache: bool = False
    ) -> None:
        super().__init__(names, tasks, cache=cache)
        self.root = root

    def read(self, key: str) -> Sample:
        """Image and maps."""
        image = read_image(self.root / "JPEGImages" / f"{key}.jpg")
        targets: dict[str, Any] = {}
        context = None
        if self.tasks & {"boundary", "normals"}:
            context = read_label_map(self.root / "pascal-context" / "trainval" / f"{key}.mat")
        if "semseg" in self.tasks:
            targets["semseg"] = read_labels(self._segmentation(key))
        if "human_parts" in self.tasks:
            parts = self.root / "human_parts" / f"{key}.mat"
            targets["human_parts"] = read_human_parts(parts, image.shape[:2])
        if "saliency" in self.tasks:
            path = self.root / "sal_distill" / f"{key}.png"
            targets["saliency"] = read_binary(path, threshold=128)
        if context is not None and "boundary" in self.tasks:
            targets["boundary"] = laplacian_boundaries(context)
        if context is not None and "normals" in self.tasks:
            path = self.root / "normals_distill" / f"{key}.png"
            normals = read_normals(path)
            if normals.shape[:2] != context.shape:
                raise SampleSizeError("normals", normals.shape[:2], context.shape, key)
            normals[~np.isin(context, NORMALS_CLASSES)] = 0
            targets["normals"] = normals
        return {"inputs": image, "targets": targets}

    def _segmentation(self, key: str) -> Path:
        voc = self.root / "semseg" / "VOC12" / f"{key}.png"
        return voc if voc.is_file() else self.root / "semseg" / "pascal-context" / f"{key}.png"


def read_label_map(path: Path) -> NDArray[np.integer]:
    """``LabelMap`` of a Context annotation, (H, W) of 0 to 459."""
    labels = np.asarray(_load_mat(path, "LabelMap"))
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        found = f"found shape {labels.shape} of {labels.dtype}"
        raise UnreadableFileError(path, f"LabelMap must be (H, W) integers, {found}")
    return labels


def read_human_parts(path: Path, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Parts of all people in a PASCAL-Part annotation, (H, W) uint8 of 0 to 6.

    The file holds ``anno.objects``, each with ``class_ind`` and ``parts`` of ``part_name`` and
    ``mask``. An image without parts is all background, which `HumanParts` ignores.

    Args:
        path: the ``.mat`` file.
        size: height and width of the image, for files without objects.
    """
    annotation = _load_mat(path, "anno")
    labels = np.zeros(size[:2], np.uint8)
    try:
        people = [o for o in _several(annotation["objects"]) if int(o["class_ind"]) == PERSON]
        for part in (part for person in people for part in _several(person["parts"])):
            mask = np.asarray(part["mask"]).astype(bool)
            labels[mask] = PARTS[str(part["part_name"])]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        reason = f"not a part annotation of this image: {error!r}"
        raise UnreadableFileError(path, reason) from error
    return labels


def _several(value: Any) -> list[Any]:
    """A MATLAB struct array; SciPy gives a single struct as a dict, an empty one as an array."""
    return [value] if isinstance(value, dict) else list(np.asarray(value, dtype=object).ravel())


def _load_mat(path: Path, name: str) -> Any:
    if not path.is_file():
        raise UnreadableFileError(path, "no such file")
    try:
        variables = scipy.io.loadmat(path, simplify_cells=True)
    except Exception as error:  # SciPy's reader lets damaged files fail in any way
        raise UnreadableFileError(path, error) from error
    if name not in variables:
        raise UnreadableFileError(path, f"it holds no variable {name!r}")
    return variables[name]


class PascalContext(BenchmarkDataModule):
    """PASCAL-Context, 4998 training and 5105 validation images (Mottaghi et al., CVPR 2014).

    Normals and saliency are distilled from networks (Maninis et al., CVPR 2019).

    Layout::

        ImageSets/Context/{train,val}.txt     names, one a line
        JPEGImages/NAME.jpg
        semseg/VOC12/NAME.png                 21 classes, 255 = unlabelled; preferred where it
        exists semseg/pascal-context/NAME.png        else this
        human_parts/NAME.mat                  PASCAL-Part annotation
        normals_distill/NAME.png              8-bit, v = 2 p / 255 - 1
        sal_distill/NAME.png                  salient from 128 on
        pascal-context/trainval/NAME.mat      LabelMap of 459 classes

    Offered tasks: ``semseg`` (21 classes), ``human_parts`` (7 with background), ``saliency``,
    ``normals`` (known only on `NORMALS_CLASSES`) and ``boundary`` (where the Laplacian of the
    LabelMap is not zero, thinned).

    The validation list is what the literature reports, so it is the test split here. Unless
    `val_fraction` is given it also is the validation split, as in the literature: then do not
    select by it.

    Args:
        tasks: the declared tasks, named as above.
        root: folder of the data set.
        recipe: transforms of the ``survey`` or the ``atrc`` protocol, see `DenseTransform.recipe`.
        size: replaces the recipe's height and width (512x512).
        augmentation: replaces the recipe's augmentation.
        val_fraction: validate on this share of the training list, drawn with `val_seed`.
        val_seed: of that choice.
        predict: any folder of images for ``predict``.
        cache: keep decoded samples in memory.
        batch_size: see `MultiTaskDataModule`, likewise the others below.
        num_workers: loader processes.
        seed: of shuffling and augmentation.
        on_error: ``raise`` or ``skip`` unreadable files.
        drop_last: leave out an incomplete last training batch.
    """

    offered = ("semseg", "human_parts", "saliency", "normals", "boundary")

    def __init__(
        self,
        tasks: Mapping[TaskName, Task],
        *,
        root: str | Path,
        recipe: Literal["survey", "atrc"] = "atrc",
        size: Size | None = None,
        augmentation: Augmentation | None = None,
        val_fraction: float | None = None,
        val_seed: int = 0,
        predict: str | Path | None = None,
        cache: bool = False,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            tasks,
            root=root,
            val_fraction=val_fraction,
            val_seed=val_seed,
            predict=predict,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            on_error=on_error,
            drop_last=drop_last,
        )
        self.recipe: Literal["survey", "atrc"] = recipe
        self.size, self.augmentation, self.cache = size, augmentation, cache

    def labelled(self, split: Literal["train", "val"]) -> PascalContextSamples:
        """Samples of an official list."""
        names = read_names(self.root / "ImageSets" / "Context" / f"{split}.txt")
        return PascalContextSamples(self.root, names, self.tasks, cache=self.cache)

    def transform(self, split: Split) -> Transform:
        """The recipe."""
        return DenseTransform.recipe(
            self.tasks,
            self.recipe,
            "pascal",
            train=split == "train",
            size=self.size,
            augmentation=self.augmentation,
        )
