"""What goes into a graph: its inputs, how raw data gets there, and samples to compare with."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph import IMAGE
from export.source import Source, SourceError, as_named, table_schema
from mtl_core.data.batch import collate
from mtl_core.errors import ArgumentError
from mtl_core.types import Inputs

Array = NDArray[Any]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What networks are trained with where no data module says otherwise."""


@dataclass(frozen=True)
class InputSpec:
    """Inputs of the graphs of a source.

    Args:
        kind: ``image`` or ``table``.
        entries: the list ``inputs`` of the manifest.
        preprocess: the content of ``preprocess.json``.
        mean: of the RGB channels, inside the graph; unused for tables.
        std: likewise.
        cardinalities: number of codes of every categorical column.
    """

    kind: Literal["image", "table"]
    entries: list[dict[str, Any]]
    preprocess: dict[str, Any]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    cardinalities: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs in order."""
        return tuple(entry["name"] for entry in self.entries)

    def arrays(self, inputs: Inputs) -> dict[str, Array]:
        """What a graph takes, of what the network takes: images without their normalisation.

        Args:
            inputs: of a batch of the data module.
        """
        named = as_named(inputs)
        if self.kind == "table":
            return {name: named[name].numpy() for name in self.names}
        mean, std = self._statistics()
        return {"image": (named["image"].float() * std + mean).clamp(0, 1).numpy()}

    def tensors(self, arrays: Mapping[str, Array]) -> Inputs:
        """The way back: what the network takes."""
        if self.kind == "table":
            return {name: torch.from_numpy(np.asarray(arrays[name])) for name in self.names}
        mean, std = self._statistics()
        return (torch.from_numpy(np.asarray(arrays["image"])) - mean) / std

    def baked(self) -> "InputSpec":
        """The same for graphs that take bytes (B, H, W, 3), see `pixels`.

        Raises:
            ArgumentError: the inputs are columns.
        """
        if self.kind != "image":
            rule = "be left out for a table, whose columns have no pixels to scale"
            raise ArgumentError("bake_preprocess", rule, self.kind)
        entry = self.entries[0]
        batch, channels, *size = entry["shape"]
        changed = {"dtype": "uint8", "shape": [batch, *size, channels], "layout": "nhwc"}
        outside = [
            step for step in self.preprocess["operations"] if step["op"] not in ("scale", "layout")
        ]
        return replace(
            self,
            entries=[{**entry, **changed, "range": [0, 255]}],
            preprocess={**self.preprocess, "operations": outside},
        )

    def random(self, count: int, seed: int = 0) -> dict[str, Array]:
        """Seeded inputs: uniform images; normal numbers, one in ten missing; uniform codes."""
        rng = np.random.default_rng(seed)
        found: dict[str, Array] = {}
        for entry in self.entries:
            shape = (count, *entry["shape"][1:])
            if entry["name"] == "image":
                found["image"] = rng.random(shape, dtype=np.float32)
            elif entry["name"] == "numeric":
                numbers = rng.normal(size=shape).astype(np.float32)
                found["numeric"] = np.where(rng.random(shape) < 0.1, np.float32("nan"), numbers)
            else:
                found["categorical"] = rng.integers(0, self.cardinalities, shape)
        return found

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (
            torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (self.mean, self.std)
        )
        return mean, std


def pixels(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Images (B, 3, H, W) in [0, 1] as bytes (B, H, W, 3); whatever else there is as it is."""
    found = dict(arrays)
    if "image" in found and found["image"].dtype != np.uint8:
        found["image"] = np.ascontiguousarray(
            np.rint(found["image"] * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        )
    return found


def snapped(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Images (B, 3, H, W) brought to the nearest multiples of 1/255, which `pixels` keeps."""
    image = np.rint(arrays["image"] * 255).astype(np.float32) / np.float32(255)
    return {**arrays, "image": image}


def input_spec(source: Source, size: tuple[int, int] | None = None) -> InputSpec:
    """What the graphs of a source take, and how raw data becomes that.

    Args:
        source: with or without data.
        size: height and width of images; needed where neither data nor network fix it.

    Raises:
        SourceError: the size of images cannot be known, inputs are neither images nor columns, or
            the data module's transform cannot be written down.
    """
    schema = table_schema(source.network)
    return _image_spec(source, size) if schema is None else _table_spec(schema)


def draw(source: Source, spec: InputSpec, count: int) -> tuple[dict[str, Array], str]:
    """`count` samples for comparisons, as graphs take them, and where they are from.

    Args:
        source: the first samples of its validation split are taken where it has data.
        spec: of the source.
        count: how many; fewer where the split is smaller.

    Returns:
        Arrays by input, and ``validation`` or ``random``.
    """
    if source.data is None:
        return spec.random(count), "random"
    split = source.data.prepared("val")
    inputs = collate([split.sample(i) for i in range(min(count, len(split)))])["inputs"]
    return spec.arrays(inputs), "validation"


def _table_spec(schema: Any) -> InputSpec:
    columns = {
        "numeric": ("float32", [c.name for c in schema.numeric]),
        "categorical": ("int64", [c.name for c in schema.categorical]),
    }
    entries = [
        {"name": name, "dtype": dtype, "shape": ["batch", len(names)], "columns": names}
        for name, (dtype, names) in columns.items()
        if names
    ]
    return InputSpec(
        "table",
        entries,
        _operations(schema, "the schema of the table"),
        cardinalities=tuple(int(c.cardinality) for c in schema.categorical),
    )


def _image_spec(source: Source, size: tuple[int, int] | None) -> InputSpec:
    preprocess: dict[str, Any]
    if source.data is not None:
        transform = source.data.transform("predict")
        preprocess = _operations(transform, f"the transform of {type(source.data).__name__}")
        shape = _shape_of_data(source)
        if size is not None and size != shape:
            raise ArgumentError("size", f"be that of the data module's images, {shape}", size)
        size = shape
    else:
        size = size or getattr(getattr(network_encoder(source), "info", None), "size", None)
        if size is None:
            raise SourceError(
                "the size of images must be known: give --config with the data module of the run, "
                "or --size H W."
            )
        preprocess = {
            "kind": "image",
            "operations": [
                {"op": "decode", "colours": "rgb"},
                {
                    "op": "resize",
                    "size": list(size),
                    "kernel": "linear",
                    "reduce": "area",
                    "keep_ratio": False,
                },
                {"op": "scale", "factor": 1 / 255},
                {"op": "layout", "order": "chw"},
            ],
            "normalization": {
                "mean": list(IMAGENET_MEAN),
                "std": list(IMAGENET_STD),
                "in_graph": True,
            },
        }
    statistics = preprocess["normalization"]
    entry = {
        "name": IMAGE[0],
        "dtype": "float32",
        "shape": ["batch", 3, *size],
        "layout": "nchw",
        "range": [0.0, 1.0],
        "colours": "rgb",
    }
    return InputSpec(
        "image", [entry], preprocess, tuple(statistics["mean"]), tuple(statistics["std"])
    )


def network_encoder(source: Source) -> Any:
    """The module that sees the images, by the name that all networks of the suite give it."""
    return getattr(source.network, "encoder", None)


def _shape_of_data(source: Source) -> tuple[int, int]:
    assert source.data is not None
    inputs = source.data.prepared("val").sample(0)["inputs"]
    shape = tuple(getattr(inputs, "shape", ()))
    if not isinstance(inputs, Tensor) or len(shape) != 3 or shape[0] != 3:
        found = sorted(inputs) if isinstance(inputs, Mapping) else shape
        raise SourceError(
            "a network must take images (3, H, W) or the columns of a table to be exported, found "
            f"{found} from {type(source.data).__name__}."
        )
    return int(shape[1]), int(shape[2])


def _operations(holder: object, what: str) -> dict[str, Any]:
    """What `holder` says it does to raw data."""
    method = getattr(holder, "operations", None)
    if not callable(method):
        raise SourceError(
            f"preprocessing must be written down for an export: {what} ({type(holder).__name__}) "
            "has no method operations()."
        )
    found: dict[str, Any] = method()
    return found
