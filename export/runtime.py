"""Predictions of an artefact folder with ONNX Runtime, numpy and Pillow; nothing else is needed."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.manifest import FolderError, read_manifest
from export.preprocess import ImagePipeline, Picture, PictureError, Step, restore
from export.table_rows import Rows, TablePipeline
from mtl_core.errors import ArgumentError, UnknownNameError

Array: TypeAlias = NDArray[Any]

EVERY = "*"
"""Key of a graph that has the outputs of all tasks."""

UNKNOWN = "unknown"
"""Name of the predictions of trees for a task that training did not have."""

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


class Predictor:
    """A model in an artefact folder, ready to predict; opens the graphs of the chosen tasks only.

    Args:
        folder: written by ``python -m export build``.
        variant: ``fp32``, ``int8-dynamic``, ... as ``python -m export inspect`` lists them.
        tasks: names; None for all.
        threads: of one operator.
        batch: samples that go through a graph at once; None is 4 pictures or 4096 rows.

    Raises:
        FolderError: the folder is incomplete or of another version. Hashes are what ``python -m
            export check`` looks at.
        UnknownNameError: there is no such variant or task.
        ArgumentError: `threads` or `batch` is below 1.

    With a folder of your own::

        predictor = Predictor("model", tasks=["depth"])
        depth = predictor.predict("room.png")["depth"]  # (H, W) of the picture, metres
    """

    def __init__(
        self,
        folder: Path | str,
        variant: str = "fp32",
        tasks: Sequence[str] | None = None,
        *,
        threads: int = 1,
        batch: int | None = None,
    ) -> None:
        for argument, value in (("threads", threads), ("batch", batch)):
            if value is not None and value < 1:
                raise ArgumentError(argument, "be at least 1", value)
        self.folder = Path(folder)
        self.manifest = read_manifest(folder)
        self.kind = str(self.manifest["kind"])
        variants = {entry["id"]: entry for entry in self.manifest["variants"]}
        if variant not in variants:
            raise UnknownNameError("variant", variant, variants)
        self.variant: dict[str, Any] = variants[variant]
        self.entries = {entry["name"]: entry for entry in self.manifest["tasks"]}
        """What the manifest says of every task."""
        extra = [UNKNOWN] if self.kind == "trees" else []
        for name in tasks or ():
            if name not in [*self.entries, *extra]:
                raise UnknownNameError("task", name, [*self.entries, *extra])
        self.tasks = list(dict.fromkeys(tasks or self.entries))
        self.labels: dict[str, dict[str, Any]] = self._json(self.manifest["labels"])
        self.static = self.variant.get("static_batch")
        self.batch = int(self.static or batch or (4 if self.kind == "image" else 4096))
        self.threads = threads
        document = self._json(self.manifest["preprocess"])
        self.images = ImagePipeline(document) if self.kind == "image" else None
        self.rows = None if self.kind == "image" else TablePipeline(document)
        self._sessions: dict[str, ort.InferenceSession] = {}
        for name in self.tasks:
            self._session(name)

    def predict(self, inputs: Picture | Rows) -> dict[str, Array]:
        """Predictions of one picture, or of all rows of a table.

        Args:
            inputs: an image file, picture or array, see `export.preprocess.Picture`; for tables a
                CSV or Parquet file, columns or rows, see `export.table_rows.Rows`.

        Returns:
            By task: (C,) of a picture, or (C, H, W) and (H, W) of its own height and width; (N, C)
            of rows.

        Raises:
            PictureError: the picture is of a kind or size that the model does not take.
            TableError: a column is absent, or holds what it must not hold.
        """
        if self.images is not None:
            return next(self.predict_each([inputs]))  # type: ignore[list-item]
        pieces = list(self.predict_pieces(inputs))  # type: ignore[arg-type]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in self.names}

    def predict_each(self, pictures: Iterable[Picture]) -> Iterator[dict[str, Array]]:
        """Predictions of pictures of any sizes, one after the other, in batches inside.

        Raises:
            ArgumentError: the model reads tables.
        """
        for values, path in self.unrestored(pictures):
            yield {name: self.restored(name, array, path) for name, array in values.items()}

    def unrestored(
        self, pictures: Iterable[Picture]
    ) -> Iterator[tuple[dict[str, Array], list[Step]]]:
        """The same with maps as the graph gives them, and the way that the picture went.

        Raises:
            ArgumentError: the model reads tables.
        """
        if self.images is None:
            raise ArgumentError("pictures", "go to a model of images, use predict", self.kind)
        held: list[tuple[Array, list[Step]]] = []
        for number, picture in enumerate(pictures):
            named = isinstance(picture, str | Path)
            where = str(picture) if named else "the picture" if not number else f"picture {number}"
            values, path = self.images(picture, where)
            self._check_size(values, where)
            held.append((values, path))
            if len(held) == self.batch:
                yield from self._pictures(held)
                held = []
        if held:
            yield from self._pictures(held)

    def restored(self, name: str, values: Array, path: Sequence[Step]) -> Array:
        """A prediction of one picture in the picture's own height and width, if it is a map.

        Args:
            name: of the task.
            values: what the graph gives, (C,), (H, W) or (C, H, W).
            path: of the picture.
        """
        if not self.entries[name]["dense"]:
            return values
        maps = restore(values, path)
        return unit_length(maps) if self.labels.get(name, {}).get("kind") == "normals" else maps

    def classes(self, values: Array, path: Sequence[Step]) -> NDArray[np.int32]:
        """The likeliest class of every pixel (H, W) of a picture, -1 where nothing is known.

        Equal to that of the restored probabilities, without holding all of them at once.

        Args:
            values: probabilities (C, h, w) as the graph gives them.
            path: of the picture.
        """
        best = restore(values[0], path)
        found = np.where(np.isnan(best), np.int32(-1), np.int32(0))
        for k in range(1, len(values)):
            plane = restore(values[k], path)
            better = plane > best
            np.copyto(best, plane, where=better)
            found[better] = k
        return found

    def predict_pieces(self, rows: Rows) -> Iterator[dict[str, Array]]:
        """Predictions of a table's rows, piece by piece, (N, C) by task.

        Raises:
            ArgumentError: the model reads pictures.
        """
        if self.rows is None:
            raise ArgumentError("rows", "go to a model of tables, use predict", self.kind)
        some = False
        for arrays in self.rows.pieces(rows, self.batch):
            some = True
            yield self.run(arrays)
        if not some:
            yield self.run(self._empty())

    @property
    def names(self) -> list[str]:
        """Names of the predictions: the chosen tasks."""
        return list(self.tasks)

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What the graphs give, by task, of what they take.

        Args:
            arrays: inputs of the manifest by name, (N, ...). Batches above `batch` are cut.

        Returns:
            Activated predictions (N, ...), maps in the height and width of the graph's input.

        Raises:
            ArgumentError: an input is absent or of another shape, or lengths differ.
        """
        size = self._check_arrays(arrays)
        found: dict[str, list[Array]] = {name: [] for name in self.tasks}
        for start in range(0, max(size, 1), self.batch):
            part = {name: array[start : start + self.batch] for name, array in arrays.items()}
            for name, values in self._run_batch(part).items():
                found[name].append(values)
        return {
            name: pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            for name, pieces in found.items()
        }

    def run_own(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What a graph of trees gives for rows that name their own task, by output.

        Args:
            arrays: ``features`` (N, F) and ``task`` (N,), -1 for a task that training did not have.
        """
        self._check_arrays(arrays)
        session = self._session(self.tasks[0])
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, _feed(session, arrays)), strict=True))

    def _run_batch(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        size = len(next(iter(arrays.values())))
        if self.static and size != self.static:
            if not size:
                raise ArgumentError("arrays", "hold a sample where the batch is fixed", size)
            order = np.minimum(np.arange(self.static), size - 1)
            arrays = {name: array[order] for name, array in arrays.items()}
        found: dict[str, Array] = {}
        for name in self.tasks:
            if name in found:
                continue
            session = self._session(name)
            index = -1 if name == UNKNOWN else int(self.entries[name]["index"])
            fed = _feed(session, arrays, index)
            outputs = [value.name for value in session.get_outputs()]
            wanted = [n for n in self.tasks if n in outputs and self._graph(n) == self._graph(name)]
            results = session.run(wanted or outputs[:1], fed)
            for key, values in zip(wanted or [name], results, strict=True):
                plain = values.astype(np.float32) if values.dtype == np.float16 else values
                found[key] = plain[:size]
        return found

    def _pictures(
        self, held: Sequence[tuple[Array, list[Step]]]
    ) -> Iterator[tuple[dict[str, Array], list[Step]]]:
        outputs = self.run({"image": np.stack([values for values, _ in held])})
        for i, (_, path) in enumerate(held):
            yield {name: values[i] for name, values in outputs.items()}, path

    def _check_size(self, values: Array, where: str) -> None:
        entry = self.manifest["inputs"][0]
        wanted = tuple(entry["shape"][1:])
        if values.shape != wanted:
            sides = slice(0, 2) if entry.get("layout") == "nhwc" else slice(-2, None)
            (high, wide), (height, width) = wanted[sides], values.shape[sides]
            raise PictureError(
                f"{where} must be {high} high and {wide} wide, because this model does not "
                f"resize, found {height} by {width}."
            )

    def _check_arrays(self, arrays: Mapping[str, Array]) -> int:
        lengths = {}
        for entry in self.manifest["inputs"]:
            name = entry["name"]
            if name not in arrays:
                if name == "task":
                    continue
                raise UnknownNameError("inputs of the graph", name, arrays)
            shape, wanted = np.shape(arrays[name]), entry["shape"]
            fits = len(shape) == len(wanted) and all(
                isinstance(rule, str) or rule == side
                for rule, side in zip(wanted[1:], shape[1:], strict=True)
            )
            if not fits:
                raise ArgumentError(f"input {name!r}", f"have shape {wanted}", list(shape))
            lengths[name] = shape[0]
        if len(set(lengths.values())) > 1:
            raise ArgumentError("inputs", "be equally long", lengths)
        return int(next(iter(lengths.values())))

    def _empty(self) -> dict[str, Array]:
        return {
            entry["name"]: np.zeros((0, *(s for s in entry["shape"][1:])), entry["dtype"])
            for entry in self.manifest["inputs"]
            if entry["name"] != "task"
        }

    def _graph(self, task: str) -> str:
        graphs: dict[str, str] = self.variant["graphs"]
        if task in graphs or EVERY in graphs:
            return graphs.get(task, graphs.get(EVERY, ""))
        raise FolderError(f"variant {self.variant['id']!r} must have a graph of task {task!r}.")

    def _session(self, task: str) -> ort.InferenceSession:
        graph = self._graph(task)
        if graph not in self._sessions:
            self._sessions[graph] = open_graph(self.folder / graph, threads=self.threads)
        return self._sessions[graph]

    def _json(self, name: str) -> dict[str, Any]:
        try:
            held = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FolderError(f"{self.folder / name} must be JSON: {error}") from error
        if not isinstance(held, dict):
            raise FolderError(f"{self.folder / name} must hold an object.")
        return held


def open_graph(path: Path | str, *, threads: int = 1) -> ort.InferenceSession:
    """ONNX Runtime on a graph, on the CPU, without its messages.

    Raises:
        FolderError: the file is missing or no graph that this ONNX Runtime can run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions derive from Exception alone and have no common base.
    except Exception as error:
        raise FolderError(
            f"{path} must be a graph that ONNX Runtime {ort.__version__} can run: {error}"
        ) from error


def _feed(
    session: ort.InferenceSession, arrays: Mapping[str, Array], task: int = -1
) -> dict[str, Array]:
    """Inputs of a graph in its own types; rows without a task of their own get `task`."""
    size = len(next(iter(arrays.values())))
    return {
        value.name: np.ascontiguousarray(
            arrays[value.name] if value.name in arrays else np.full(size, task),
            _TYPES[value.type],
        )
        for value in session.get_inputs()
    }


def unit_length(normals: Array) -> Array:
    """Vectors (3, H, W) brought to length 1; those shorter than 1e-12 stay as they are."""
    length = np.sqrt(np.einsum("chw,chw->hw", normals, normals))
    result: Array = normals / np.maximum(length, 1e-12)
    return result
