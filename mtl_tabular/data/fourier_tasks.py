"""Generated long tables of smooth random functions: related, unrelated, and outlying tasks."""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError, UnknownNameError

Kind = Literal["numeric", "binary"]
Part = Literal["train", "val", "test"]

BLOCK = 256
"""Rows of a task that share one generator; where chunks begin and end changes nothing."""
OWN_SHARE = 0.1
"""Weight of a task's own function in scenarios 3 and 4; the common one has the rest."""
LEAST_CLASS = 0.12
"""Least share of a class over the cube; with a margin, so that samples keep a tenth of each."""

_FUNCTIONS, _FEATURES, _PROBE = range(3)


class FourierTasks:
    """Draws rows of T tasks, each a smooth function of features that are uniform on (-1, 1)^F.

    A function is Σ_m a_m √(2/M) cos(w_m · x / l + b_m) with a_m ~ N(0, 1), w_m ~ N(0, I),
    b_m ~ U(0, 2π) and l = F/4: a Gaussian process with a squared exponential kernel, in M random
    Fourier features. There is no noise. Scenarios, after Emami et al. 2025 (R-MTGB,
    arXiv 2507.11411):

    1. one function for all tasks;
    2. an independent function each;
    3. 0.9 times a common function plus 0.1 times one of its own;
    4. as 3, but the last tasks, the outliers, have another common function.

    The same arguments give the same rows whatever was drawn before and in whatever chunks, and the
    first rows of a task do not depend on how many follow or on how many tasks there are.

    Args:
        scenario: 1 to 4.
        kind: ``numeric`` targets, or ``binary`` ones: 1 where the function is positive. A function
            whose classes are too unequal (less than `LEAST_CLASS` of the cube) is drawn anew, so
            each class has about a tenth of the rows of every task, or more.
        num_tasks: T.
        num_outliers: of scenario 4, less than T; elsewhere without effect.
        num_features: F.
        waves: M, what a row costs.
        seed: of functions and rows.

    Raises:
        ArgumentError: an argument is out of its range.
        UnknownNameError: an unknown kind.

    Example:
        >>> table = FourierTasks(4, num_tasks=3, num_outliers=1).draw(100)
        >>> table.shape, list(table.columns)
        ((300, 7), ['x1', 'x2', 'x3', 'x4', 'x5', 'task', 'y'])
    """

    def __init__(
        self,
        scenario: int,
        *,
        kind: Kind = "numeric",
        num_tasks: int = 10,
        num_outliers: int = 2,
        num_features: int = 5,
        waves: int = 500,
        seed: int = 0,
    ) -> None:
        if scenario not in (1, 2, 3, 4):
            raise ArgumentError("scenario", "be 1, 2, 3 or 4", scenario)
        if kind not in get_args(Kind):
            raise UnknownNameError("kind", kind, get_args(Kind))
        for name, value, least in (
            ("num_tasks", num_tasks, 1),
            ("num_features", num_features, 1),
            ("waves", waves, 1),
            ("num_outliers", num_outliers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ArgumentError(name, f"be at least {least}", value)
        if scenario == 4 and num_outliers >= num_tasks:
            raise ArgumentError("num_outliers", f"be less than {num_tasks} tasks", num_outliers)
        self.scenario = scenario
        self.kind = kind
        self.num_tasks = num_tasks
        self.num_features = num_features
        self.waves = waves
        self.seed = seed
        first = num_tasks - num_outliers if scenario == 4 else num_tasks
        self.outliers = tuple(range(first, num_tasks))
        """Tasks with the other common function."""
        self._functions = self._draw_functions()

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _mix(self, task: int) -> tuple[tuple[int, float], ...]:
        """Functions of a task and their weights: 0 and 1 are common, 2 + task is its own."""
        if self.scenario == 1:
            return ((0, 1.0),)
        if self.scenario == 2:
            return ((2 + task, 1.0),)
        return ((int(task in self.outliers), 1 - OWN_SHARE), (2 + task, OWN_SHARE))

    def _function(self, index: int, attempt: int) -> NDArray[np.float32]:
        """Frequencies, phases and amplitudes of a function, (F + 2, M)."""
        rng = self._generator(_FUNCTIONS, index, attempt)
        found = np.empty((self.num_features + 2, self.waves))
        found[:-2] = rng.standard_normal((self.num_features, self.waves))
        found[:-2] /= 0.25 * self.num_features
        found[-2] = rng.uniform(0, 2 * np.pi, self.waves)
        found[-1] = rng.standard_normal(self.waves) * np.sqrt(2 / self.waves)
        return found.astype(np.float32)

    def _draw_functions(self) -> dict[int, NDArray[np.float32]]:
        """All functions by index; of classes only those that leave enough of both."""
        if self.kind == "numeric":
            used = {index for task in range(self.num_tasks) for index, _ in self._mix(task)}
            return {index: self._function(index, 0) for index in used}
        drawn = self._generator(_PROBE).uniform(-1, 1, (self.num_features, 8 * BLOCK))
        probe = drawn.astype(np.float32)
        found: dict[int, NDArray[np.float32]] = {}
        values: dict[int, NDArray[np.float32]] = {}
        for task in range(self.num_tasks):
            base: NDArray[np.float32] = np.zeros(probe.shape[1], dtype=np.float32)
            for index, weight in self._mix(task):
                if index not in found:
                    found[index], values[index] = self._balanced(index, weight, base, probe)
                base += np.float32(weight) * values[index]
        return found

    def _balanced(
        self, index: int, weight: float, base: NDArray[np.float32], probe: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The first draw of a function that added to `base` has enough of both signs."""
        for attempt in range(1000):
            function = self._function(index, attempt)
            values = evaluate(function, probe)
            positive = float(np.mean(base + np.float32(weight) * values > 0))
            if LEAST_CLASS <= positive <= 1 - LEAST_CLASS:
                return function, values
        raise ArgumentError("seed", "give functions of both signs in 1000 draws", self.seed)

    def values(self, features: NDArray[np.floating], task: int) -> NDArray[np.float32]:
        """The function of a task, (n,), before any sign is taken.

        Args:
            features: (n, F).
            task: 0..T-1.

        Raises:
            ArgumentError: there is no such task, or F is another.
        """
        if not 0 <= task < self.num_tasks:
            raise ArgumentError("task", f"lie in 0..{self.num_tasks - 1}", task)
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ArgumentError("features", f"be (n, {self.num_features})", features.shape)
        columns = np.ascontiguousarray(features.T, dtype=np.float32)
        found = np.zeros(len(features), dtype=np.float32)
        for index, weight in self._mix(task):
            found += np.float32(weight) * evaluate(self._functions[index], columns)
        return found

    def draw(
        self, rows: int, part: Part = "train", *, start: int = 0, tasks: range | None = None
    ) -> pd.DataFrame:
        """Rows `start` to `start + rows` of every task, task after task.

        Args:
            rows: a task.
            part: ``train``, ``val`` or ``test``; parts have rows of their own.
            start: first row of every task.
            tasks: which tasks; all if None.

        Returns:
            Columns ``x1``.. (float32), ``task`` (int32) and ``y`` (float32, or int8 classes 0, 1).

        Raises:
            ArgumentError: a number is negative or there is no such task.
            UnknownNameError: an unknown part.
        """
        if part not in get_args(Part):
            raise UnknownNameError("part", part, get_args(Part))
        for name, value in (("rows", rows), ("start", start)):
            if value < 0:
                raise ArgumentError(name, "be at least 0", value)
        chosen = range(self.num_tasks) if tasks is None else tasks
        if len(chosen) and not (min(chosen) >= 0 and max(chosen) < self.num_tasks):
            raise ArgumentError("tasks", f"lie in 0..{self.num_tasks - 1}", chosen)
        total = rows * len(chosen)
        x = np.empty((self.num_features, total), dtype=np.float32)
        y = np.empty(total, dtype=np.float32 if self.kind == "numeric" else np.int8)
        for position, task in enumerate(chosen):
            offset = position * rows - start
            for block in range(start // BLOCK, -(-(start + rows) // BLOCK)):
                first = block * BLOCK
                low, high = max(start, first), min(start + rows, first + BLOCK)
                here, there = slice(low - first, high - first), slice(low + offset, high + offset)
                features, target = self._block(task, get_args(Part).index(part), block)
                x[:, there], y[there] = features[:, here], target[here]
        frame = pd.DataFrame(x.T, columns=[f"x{i + 1}" for i in range(self.num_features)])
        frame["task"] = np.repeat(np.array(chosen, dtype=np.int32), rows)
        frame["y"] = y
        return frame

    def _block(
        self, task: int, part: int, block: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features (F, BLOCK) and targets (BLOCK,) of one block of rows of a task."""
        rng = self._generator(_FEATURES, task, part, block)
        x = rng.random((self.num_features, BLOCK), dtype=np.float32) * 2 - 1
        y = self.values(x.T, task)
        return x, y if self.kind == "numeric" else (y > 0).astype(np.float32)

    def chunks(
        self, rows: int, part: Part = "train", *, chunk: int = 1 << 18
    ) -> Iterator[pd.DataFrame]:
        """The rows of `draw` in frames of about `chunk` rows, each made when it is asked for.

        Args:
            rows: a task.
            part: as `draw` takes it.
            chunk: rows a frame at most; of whole tasks where several fit.
        """
        if chunk < 1:
            raise ArgumentError("chunk", "be at least 1", chunk)
        together = max(1, chunk // max(rows, 1))
        for task in range(0, self.num_tasks, together):
            tasks = range(task, min(task + together, self.num_tasks))
            for start in range(0, rows, chunk):
                yield self.draw(min(chunk, rows - start), part, start=start, tasks=tasks)


def evaluate(function: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (n,) of a random Fourier function.

    Sums go feature by feature and row by row: matrix products round differently with their size.

    Args:
        function: frequencies, phases and amplitudes, (F + 2, M).
        columns: (F, n).
    """
    found = np.empty(columns.shape[1], dtype=np.float32)
    for low in range(0, columns.shape[1], BLOCK):
        piece = columns[:, low : low + BLOCK]
        angle = np.tile(function[-2], (piece.shape[1], 1))
        for frequency, column in zip(function[:-2], piece, strict=True):
            angle += column[:, None] * frequency
        np.cos(angle, out=angle)
        angle *= function[-1]
        found[low : low + BLOCK] = angle.sum(1)
    return found
