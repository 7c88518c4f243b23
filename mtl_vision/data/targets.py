"""Where the targets of a task come from, in the layout of `ImageFolderTasks`."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, LabelError, UnknownNameError
from mtl_core.tasks.base import Task
from mtl_core.tasks.classification import Classification
from mtl_core.tasks.multilabel import MultiLabel
from mtl_core.tasks.regression import Regression
from mtl_vision.data.files import read_binary, read_depth, read_labels, read_normals
from mtl_vision.tasks.boundary import BoundaryDetection
from mtl_vision.tasks.depth import DepthEstimation
from mtl_vision.tasks.normals import SurfaceNormals
from mtl_vision.tasks.saliency import SaliencyDetection

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TargetSource:
    """Source of one task's targets: exactly one of a folder, a CSV file, or another target.

    Args:
        folder: folder of maps below the root, ``{split}`` replaced; a map has its image's name.
        suffix: what a map's name has after its image's name, before the extension (``_label``).
        ignore: stored value of unlabelled pixels.
        offset: added to stored classes; -1 where files count from 1.
        threshold: of yes/no maps: stored values from here on are 1 (128 for masks of 0 and 255).
        scale: of depth: metres per stored unit.
        csv: CSV file below the root, ``{split}`` replaced, with a header.
        column: its column with the value; several for multi-label and vector targets. An empty cell
            is no label.
        name_column: its column with the image's name, with or without extension.
        derive: ``boundaries`` (where labels change, one pixel thin) or ``presence`` (which classes
            occur in the image) of the labels of `source`.
        source: name of the target that `derive` works on, which has a folder.
        min_share: least share of the labelled pixels that makes a class present, in [0, 1].
    """

    folder: str | None = None
    suffix: str = ""
    ignore: int | None = None
    offset: int = 0
    threshold: int | None = None
    scale: float = 1.0
    csv: str | None = None
    column: str | tuple[str, ...] = ()
    name_column: str = "name"
    derive: Literal["boundaries", "presence"] | None = None
    source: str | None = None
    min_share: float = 0.0

    def __post_init__(self) -> None:
        given = [n for n in ("folder", "csv", "derive") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ArgumentError("a target", "have exactly one of folder, csv and derive", given)
        if self.csv is not None and not self.column:
            raise ArgumentError("column", "name a column of the CSV file", self.column)
        if (self.derive is None) != (self.source is None):
            raise ArgumentError("source", "be given with derive, and only then", self.source)
        if self.derive not in (None, "boundaries", "presence"):
            raise UnknownNameError("derive", self.derive, ("boundaries", "presence"))
        if not self.scale > 0:
            raise ArgumentError("scale", "be positive", self.scale)
        if not 0 <= self.min_share <= 1:
            raise ArgumentError("min_share", "lie in [0, 1]", self.min_share)

    @property
    def columns(self) -> tuple[str, ...]:
        """`column` as a tuple."""
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)


def read_map(source: TargetSource, task: Task | None, path: Path) -> Array:
    """A map as its task wants it stored; labels where the task is not declared."""
    match task:
        case DepthEstimation():
            return read_depth(path, scale=source.scale, ignore=source.ignore)
        case SurfaceNormals():
            return read_normals(path)
        case BoundaryDetection() | SaliencyDetection():
            return read_binary(path, threshold=source.threshold, ignore=source.ignore)
        case _:
            return read_labels(path, ignore=source.ignore, offset=source.offset)


def class_presence(
    labels: Array, num_classes: int, *, task: str, key: str, min_share: float = 0.0
) -> NDArray[np.int64]:
    """Which classes occur in a label map: (K,) int64 of 0 and 1; 255 is no class.

    A class occurs where it covers a pixel, and at least `min_share` of the labelled ones.

    Raises:
        LabelError: the map holds a class outside 0..K-1.
    """
    found, pixels = np.unique(labels[labels != 255], return_counts=True)
    if found.size and not 0 <= found[0] <= found[-1] < num_classes:
        rule = f"derive from classes in 0..{num_classes - 1}"
        raise LabelError(task, rule, found[(found < 0) | (found >= num_classes)][:5], key)
    presence = np.zeros(num_classes, np.int64)
    presence[found[pixels >= min_share * pixels.sum()]] = 1
    return presence


def read_table(
    path: Path, source: TargetSource, task: Task, name: str
) -> dict[str, int | NDArray[Any]]:
    """Values of a task by image name, from a CSV file; rows with empty cells are left out.

    Classification: an index, or one of the task's class names. Regression: a number per column.
    Multi-label: 0, 1 or -1 per column, an empty cell is -1 (unknown).

    Raises:
        ArgumentError: no such file, no such column, or a name twice.
        LabelError: a cell that is no value of the task.
    """
    if not path.is_file():
        raise ArgumentError(f"csv of target {name!r}", "name an existing file", str(path))
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for column in (source.name_column, *source.columns):
            if column not in (reader.fieldnames or ()):
                raise UnknownNameError(
                    f"column of target {name!r}", column, reader.fieldnames or ()
                )
        values: dict[str, int | NDArray[Any]] = {}
        seen: set[str] = set()
        for row in reader:
            key = (row[source.name_column] or "").strip()
            if key in seen:
                raise ArgumentError(str(path), "name every image once", key)
            seen.add(key)
            cells = [(row[column] or "").strip() for column in source.columns]
            value = _cells(cells, task, name, where=f"{path.name}, row {key!r}")
            if value is not None:
                values[key] = value
    return values


def _cells(cells: list[str], task: Task, name: str, *, where: str) -> int | NDArray[Any] | None:
    match task:
        case Classification():
            return _class(cells[0], task, name, where) if cells[0] else None
        case MultiLabel():
            numbers = _numbers([cell or "-1" for cell in cells], name, where).astype(np.int64)
            return None if (numbers == -1).all() else numbers
        case Regression():
            if not all(cells):
                return None
            numbers = _numbers(cells, name, where).astype(np.float32)
            return numbers.reshape(()) if len(cells) == 1 else numbers
        case _:
            rule = "come from a folder unless the task is classification, multi-label or regression"
            raise ArgumentError(f"target {name!r}", rule, type(task).__name__)


def _class(cell: str, task: Classification, name: str, where: str) -> int:
    if cell in task.class_names:
        return task.class_names.index(cell)
    try:
        return int(cell)
    except ValueError:
        rule = "be class indices or one of the task's class_names"
        raise LabelError(name, rule, repr(cell), where) from None


def _numbers(cells: list[str], name: str, where: str) -> NDArray[np.float64]:
    try:
        return np.asarray([float(cell) for cell in cells])
    except ValueError:
        raise LabelError(name, "be numbers", cells, where) from None


def check_sources(targets: Mapping[str, TargetSource], tasks: Mapping[str, Task]) -> None:
    """Refuse derived targets whose source or task does not fit."""
    for name, target in targets.items():
        if target.derive is None:
            continue
        source = target.source or ""
        if source not in targets:
            raise UnknownNameError(f"source of target {name!r}", source, targets)
        if targets[source].folder is None:
            raise ArgumentError(f"source of target {name!r}", "have a folder", source)
        task, wanted = tasks.get(name), BoundaryDetection
        if target.derive == "presence":
            if task is not None and not isinstance(task, MultiLabel):
                rule = "belong to a MultiLabel task where it derives presence"
                raise ArgumentError(f"target {name!r}", rule, type(task).__name__)
        elif task is not None and not isinstance(task, wanted):
            rule = "belong to a BoundaryDetection task where it derives boundaries"
            raise ArgumentError(f"target {name!r}", rule, type(task).__name__)
