"""Generated multitask tables (MultiTab-Bench): any number of rows, in memory or on disk."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import ndtri

from mtl_core.atomic import atomic_write
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_tabular.data.synthetic_spec import SyntheticSpec

Part = Literal["train", "val", "test"]

BLOCK = 8192
"""Rows that share one generator a component; where chunks begin and end changes nothing."""

_WEIGHTS, _FEATURES, _NOISE, _LABELS, _VALUES, _LAYOUT, _CODES = range(7)


@dataclass(frozen=True)
class Rows:
    """Generated rows.

    Args:
        spec: what they were made of.
        numeric: (N, F - C) float32, NaN where a value is missing.
        categorical: (N, C) int64 in 0..levels-1, -1 where a value is missing.
        labels: (N, T) float32: numbers, or positions of classes.
        labelled: (N, T) bool, which labels count. The others are there, but hidden by `frame`.
    """

    spec: SyntheticSpec
    numeric: NDArray[np.float32]
    categorical: NDArray[np.int64]
    labels: NDArray[np.float32]
    labelled: NDArray[np.bool_]

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def frame(self) -> pd.DataFrame:
        """Columns ``c1``.. (categories ``k0``..), ``x1``.., ``task1``..; missing where missing.

        Targets of classes are nullable integers, numeric ones are float32 with NaN.
        """
        levels = [f"k{i}" for i in range(self.spec.levels)]
        parts: dict[str, Any] = {
            name: pd.Categorical.from_codes(self.categorical[:, i], categories=pd.Index(levels))
            for i, name in enumerate(self.spec.categorical_names)
        }
        tasks: dict[str, Any] = {}
        for i, (name, kind) in enumerate(
            zip(self.spec.task_names, self.spec.task_kinds, strict=True)
        ):
            if kind == "numeric":
                tasks[name] = np.where(self.labelled[:, i], self.labels[:, i], np.float32(np.nan))
            else:
                classes = self.labels[:, i].astype(np.int16)
                tasks[name] = pd.arrays.IntegerArray(classes, ~self.labelled[:, i])
        frames = [
            pd.DataFrame(parts, index=range(len(self))),
            pd.DataFrame(self.numeric, columns=list(self.spec.numeric_names)),
            pd.DataFrame(tasks),
        ]
        return pd.concat(frames, axis=1)

    def long_frame(self) -> pd.DataFrame:
        """One row a label: features, ``task`` (its name) and ``label``; for tasks of one kind.

        Raises:
            ArgumentError: tasks are of several kinds, whose labels share no column.
        """
        if len(set(self.spec.task_kinds)) > 1:
            raise ArgumentError("kinds", "be the same for all tasks", self.spec.task_kinds)
        row, task = np.nonzero(self.labelled)
        features = [*self.spec.categorical_names, *self.spec.numeric_names]
        found = self.frame()[features].iloc[row].reset_index(drop=True)
        names = pd.Categorical.from_codes(task, categories=pd.Index(self.spec.task_names))
        labels = self.labels[row, task]
        numeric = self.spec.task_kinds[0] == "numeric"
        columns = {"task": names, "label": labels if numeric else labels.astype(np.int16)}
        return pd.concat([found, pd.DataFrame(columns)], axis=1)


class SyntheticTable:
    """Draws rows of one problem: the same weights W for every part, disjoint draws of rows.

    The same spec and seed give the same bytes on the CPU, whatever was drawn before and in whatever
    chunks: weights, features, noise and masks have generators of their own, seeded by (seed,
    component, part, block of rows), and the first N rows do not depend on how many follow.

    Args:
        spec: what to generate.
        seed: of everything.

    Example:
        >>> table = SyntheticTable(SyntheticSpec(num_tasks=2, num_features=3, degrees=2), seed=0)
        >>> list(table.draw(5).frame().columns)
        ['x1', 'x2', 'x3', 'task1', 'task2']
    """

    def __init__(self, spec: SyntheticSpec, *, seed: int = 0) -> None:
        if seed < 0:
            raise ArgumentError("seed", "be at least 0", seed)
        self.spec = spec
        self.seed = seed
        self.weights = self._weights()
        """W (T, F): unit rows whose products are the correlation."""
        edges = ndtri(np.arange(1, spec.levels) / spec.levels)
        self._edges = edges.astype(np.float32)
        codes = self._generator(_CODES)
        self._codes = [codes.permutation(spec.levels) for _ in range(spec.num_categorical)]

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _weights(self) -> NDArray[np.float64]:
        T, free = self.spec.num_tasks, self.spec.num_features - self.spec.num_distractors
        rows, triangle = np.linalg.qr(self._generator(_WEIGHTS).standard_normal((T, free)).T)
        orthonormal = (rows * np.sign(np.diag(triangle))).T
        values, vectors = np.linalg.eigh(self.spec.matrix)
        mixed = (vectors * np.sqrt(np.clip(values, 0, None))) @ orthonormal
        return np.pad(mixed, ((0, 0), (0, self.spec.num_distractors)))

    def draw(self, rows: int, part: Part = "train", *, start: int = 0) -> Rows:
        """Rows `start` to `start + rows` of a part.

        Args:
            rows: how many.
            part: ``train``, ``val`` or ``test``; draws of different parts are independent.
            start: first row.

        Raises:
            ArgumentError: a number is negative.
            UnknownNameError: an unknown part.
        """
        if part not in get_args(Part):
            raise UnknownNameError("part", part, get_args(Part))
        for name, value in (("rows", rows), ("start", start)):
            if value < 0:
                raise ArgumentError(name, "be at least 0", value)
        spec, C = self.spec, self.spec.num_categorical
        # Column by column in memory, which is how they are made, and what Arrow and pandas want.
        numeric = np.empty((spec.num_features - C, rows), dtype=np.float32)
        categorical = np.empty((C, rows), dtype=np.int64)
        labels = np.empty((spec.num_tasks, rows), dtype=np.float32)
        labelled = np.empty((spec.num_tasks, rows), dtype=np.bool_)
        for block in range(start // BLOCK, -(-(start + rows) // BLOCK)):
            first = block * BLOCK
            low, high = max(start, first), min(start + rows, first + BLOCK)
            here, there = slice(low - first, high - first), slice(low - start, high - start)
            x, y, known = self._block(get_args(Part).index(part), block)
            labels[:, there], labelled[:, there] = y[:, here], known[:, here]
            numeric[:, there] = x[C:, here]
            for i, code in enumerate(self._codes):
                values = x[i, here]
                binned = code[np.searchsorted(self._edges, values)]
                categorical[i, there] = np.where(np.isnan(values), -1, binned)
        return Rows(spec, numeric.T, categorical.T, labels.T, labelled.T)

    def _block(
        self, part: int, block: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Features (F, BLOCK), labels (T, BLOCK) and their mask of one block of rows."""
        spec = self.spec
        x = self._generator(_FEATURES, part, block).standard_normal(
            (spec.num_features, BLOCK), dtype=np.float32
        )
        # Sums in a fixed order; matrix products round differently with their size and threads.
        weights = self.weights.astype(np.float32)[:, :, None]
        u = np.zeros((spec.num_tasks, BLOCK), dtype=np.float32)
        product = np.empty_like(u)
        for k in range(spec.num_features - spec.num_distractors):
            np.multiply(weights[:, k], x[k], out=product)
            u += product
        y = self._labels(u, part, block)
        known = np.ones(y.shape, dtype=np.bool_)
        if spec.layout == "long":
            chosen = self._generator(_LAYOUT, part, block).integers(spec.num_tasks, size=BLOCK)
            known &= chosen == np.arange(spec.num_tasks)[:, None]
        if any(spec.task_missing):
            drawn = self._generator(_LABELS, part, block).random(y.shape, dtype=np.float32)
            known &= drawn >= np.array(spec.task_missing, dtype=np.float32)[:, None]
        if spec.missing_values:
            drawn = self._generator(_VALUES, part, block).random(x.shape, dtype=np.float32)
            x[drawn < spec.missing_values] = np.nan
        return x, y, known

    def _labels(self, u: NDArray[np.float32], part: int, block: int) -> NDArray[np.float32]:
        spec = self.spec
        y = u.copy()
        for i, degree in enumerate(spec.task_degrees):
            for _ in range(degree - 1):
                y[i] += 1
                y[i] *= u[i]
        noise = np.array(spec.task_noise, dtype=np.float32)[:, None]
        if noise.any():
            y += noise * self._generator(_NOISE, part, block).standard_normal(
                y.shape, dtype=np.float32
            )
        for i, (borders, (mean, std)) in enumerate(zip(spec.thresholds, spec.scaling, strict=True)):
            if borders:
                y[i] = np.searchsorted(np.array(borders, dtype=np.float32), y[i], side="right")
            elif spec.standardize:
                y[i] -= np.float32(mean)
                y[i] /= np.float32(std)
        return y

    def chunks(self, rows: int, part: Part = "train", *, chunk: int = 1 << 16) -> Iterator[Rows]:
        """The rows of a part in chunks of at most `chunk`, each made when it is asked for."""
        if chunk < 1:
            raise ArgumentError("chunk", "be at least 1", chunk)
        for start in range(0, rows, chunk):
            yield self.draw(min(chunk, rows - start), part, start=start)

    def write_parquet(
        self, path: Path | str, rows: int, part: Part = "train", *, chunk: int = 1 << 16
    ) -> Path:
        """Write a part as Parquet in constant memory, and its manifest beside it.

        Missing labels and values are nulls, so the masks are in the file.

        Args:
            path: of the file; it appears once it is complete.
            rows: how many.
            part: which rows.
            chunk: rows in memory at a time, and of a row group.

        Returns:
            The manifest: the path with ``.json`` appended.

        Raises:
            CheckpointWriteError: the system refused; nothing is left behind.
        """
        path = Path(path)
        schema = arrow_table(self.draw(0)).schema
        # Dictionaries of random floats only cost time.
        repeated = list(self.spec.categorical_names)
        with (
            atomic_write(path) as file,
            pq.ParquetWriter(file, schema, use_dictionary=repeated) as writer,
        ):
            for piece in self.chunks(rows, part, chunk=chunk):
                writer.write_table(arrow_table(piece), row_group_size=chunk)
        manifest = path.with_name(f"{path.name}.json")
        content = {**self.manifest(), "part": part, "rows": rows}
        with atomic_write(manifest) as file:
            file.write(json.dumps(content, indent=2).encode())
        return manifest

    def manifest(self) -> dict[str, Any]:
        """What the data are, as JSON holds it: enough to make and to judge more of it."""
        spec = self.spec
        return {
            "generator": "MultiTab-Bench",
            "version": 1,
            "seed": self.seed,
            "spec": spec.plain(),
            "W": self.weights.tolist(),
            "P": spec.matrix.tolist(),
            "degrees": list(spec.task_degrees),
            "noise": list(spec.task_noise),
            "scaling": [{"mean": mean, "std": std} for mean, std in spec.scaling],
            "thresholds": [list(borders) for borders in spec.thresholds],
            "categories": [codes.tolist() for codes in self._codes],
            "best_explained_variance": list(spec.best_explained_variance()),
            "linear_explained_variance": list(spec.linear_explained_variance()),
        }


def arrow_table(rows: Rows) -> pa.Table:
    """The columns of `Rows.frame` as an Arrow table; missing is null."""
    spec = rows.spec
    levels = pa.array([f"k{i}" for i in range(spec.levels)])
    columns: dict[str, pa.Array] = {}
    for i, name in enumerate(spec.categorical_names):
        codes = rows.categorical[:, i].astype(np.int32)
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), levels)
    for i, name in enumerate(spec.numeric_names):
        values = np.ascontiguousarray(rows.numeric[:, i])
        columns[name] = pa.array(values, mask=np.isnan(values) if spec.missing_values else None)
    for i, (name, kind) in enumerate(zip(spec.task_names, spec.task_kinds, strict=True)):
        labels = np.ascontiguousarray(rows.labels[:, i])
        labels = labels if kind == "numeric" else labels.astype(np.int16)
        columns[name] = pa.array(labels, mask=np.ascontiguousarray(~rows.labelled[:, i]))
    return pa.table(columns)
