"""Ensembles of trees that grow round by round from given derivatives, and the rows they grow on."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from mtl_core.errors import ArgumentError
from mtl_tabular.boosting.chunks import TaskChunk, task_chunks
from mtl_tabular.boosting.matrix import row_matrix
from mtl_tabular.boosting.objectives import Floats


class TreeBlock:
    """One additive ensemble with K outputs, grown by XGBoost from first and second derivatives.

    Its score starts at zero; every round adds one tree an output (or one tree of K values a leaf
    with ``multi_strategy: multi_output_tree``), scaled by the learning rate.

    Args:
        parameters: of XGBoost's trees; none of the objective. A ``subsample`` below 1 is drawn
            anew in every round from the ``seed`` and the round.
        outputs: K.
        origin: number by which the block is known whatever its place.
    """

    def __init__(self, parameters: dict[str, Any], *, outputs: int = 1, origin: int = 0) -> None:
        self.parameters = dict(parameters)
        self.subsample = float(self.parameters.pop("subsample", 1.0))
        self.outputs = outputs
        self.origin = origin
        self.rounds = 0
        self.booster: xgb.Booster | None = None

    def grow(self, matrix: xgb.DMatrix, gradient: Floats, hessian: Floats) -> None:
        """Add one round.

        Args:
            matrix: n rows, the same object in every round.
            gradient: (n, K).
            hessian: (n, K).
        """
        if self.booster is None:
            whole = {
                "objective": "reg:squarederror",  # never asked: derivatives are given
                "num_target": self.outputs,
                "base_score": 0.0,
                "disable_default_eval_metric": True,
            }
            self.booster = xgb.Booster(self.parameters | whole, cache=[matrix])
        if self.subsample < 1:
            # XGBoost's own sample depends on what its process drew before, this one on the round.
            rng = np.random.default_rng((self.parameters.get("seed", 0), self.rounds))
            kept = rng.random((len(gradient), 1)) < self.subsample
            gradient, hessian = np.where(kept, gradient, 0), np.where(kept, hessian, 0)
        self.booster.boost(
            matrix,
            iteration=self.rounds,
            grad=np.ascontiguousarray(gradient, dtype=np.float32),
            hess=np.ascontiguousarray(hessian, dtype=np.float32),
        )
        self.rounds += 1

    def scores(self, matrix: xgb.DMatrix) -> Floats:
        """Scores (n, K) of all rounds; on the matrix that the trees grow on, from a cache."""
        if self.booster is None:
            return np.zeros((matrix.num_row(), self.outputs), dtype=np.float32)
        return self._shape(self.booster.predict(matrix, output_margin=True))

    def part(self, matrix: xgb.DMatrix, start: int, stop: int) -> Floats:
        """Scores (n, K) of the rounds from `start` to before `stop`.

        Not for the matrix that the trees grow on: XGBoost 3.2 then continues its cache of that
        matrix from the part, and `scores` is wrong from the next round on.
        """
        if self.booster is None or start >= min(stop, self.rounds):
            return np.zeros((matrix.num_row(), self.outputs), dtype=np.float32)
        rounds = (start, min(stop, self.rounds))
        return self._shape(self.booster.predict(matrix, output_margin=True, iteration_range=rounds))

    def _shape(self, margin: Any) -> Floats:
        shaped: Floats = np.asarray(margin).reshape(-1, self.outputs)
        return shaped

    def keep(self, rounds: int) -> None:
        """Forget all but the first rounds."""
        if rounds >= self.rounds:
            return
        assert self.booster is not None
        self.booster = self.booster[:rounds] if rounds else None
        if self.booster is not None:
            self.booster.set_param(self.parameters)
        self.rounds = rounds

    def gains(self, features: int) -> NDArray[np.float64]:
        """Sum of the gains of all splits by feature, (features,)."""
        total = np.zeros(features)
        if self.booster is not None:
            scores = self.booster.get_score(importance_type="total_gain")
            for name, gain in scores.items():
                total[int(name[1:])] = float(np.sum(gain))
        return total

    def state(self) -> dict[str, Any]:
        """Rounds and trees as plain data."""
        if self.booster is None:
            return {"rounds": 0, "origin": self.origin, "trees": None}
        trees = json.loads(self.booster.save_raw("json"))
        return {"rounds": self.rounds, "origin": self.origin, "trees": trees}

    def restore(self, state: dict[str, Any]) -> Self:
        """Take rounds and trees from plain data.

        Args:
            state: of `state`.
        """
        self.rounds, self.origin = int(state["rounds"]), int(state["origin"])
        self.booster = None
        if state["trees"] is not None:
            self.booster = xgb.Booster(self.parameters)
            self.booster.load_model(bytearray(json.dumps(state["trees"]).encode()))
            self.booster.set_param(self.parameters)
        return self


class Rows(Protocol):
    """Rows that trees are asked about."""

    @property
    def values(self) -> Floats:
        """(n, F) float32, NaN where missing."""

    @property
    def matrix(self) -> xgb.DMatrix:
        """The same as XGBoost takes them."""


@dataclass(frozen=True)
class FeatureRows:
    """Features of rows whose targets are not known.

    Args:
        values: (n, F), NaN where missing.
        kinds: ``q`` or ``c`` a feature.
    """

    values: Floats
    kinds: tuple[str, ...]

    @cached_property
    def matrix(self) -> xgb.DMatrix:
        """As XGBoost takes them."""
        return row_matrix(self.values, self.kinds, 0)


@dataclass(frozen=True)
class RowSet:
    """Rows sorted by task, as trees and losses need them.

    Args:
        values: (n, F) features, NaN where missing; see `row_matrix` for those in a file.
        targets: (n,).
        weights: (n,).
        tasks: (n,) ascending in 0..T-1.
        count: T.
        kinds: ``q`` or ``c`` a feature.
        max_bin: bins of a feature; 0 keeps exact values.
    """

    values: Floats
    targets: NDArray[Any]
    weights: Floats
    tasks: NDArray[np.int64]
    count: int
    kinds: tuple[str, ...]
    max_bin: int = 256
    slices: dict[int, slice] = field(init=False)

    def __post_init__(self) -> None:
        """Find every task's rows."""
        if len(self.tasks) and (np.diff(self.tasks) < 0).any():
            raise ArgumentError("tasks", "be in ascending order", self.tasks[:8].tolist())
        edges = np.searchsorted(self.tasks, np.arange(self.count + 1))
        slices = {r: slice(int(a), int(b)) for r, (a, b) in enumerate(pairwise(edges)) if b > a}
        object.__setattr__(self, "slices", slices)
        object.__setattr__(self, "_chunks", {})

    @cached_property
    def matrix(self) -> xgb.DMatrix:
        """All rows as XGBoost takes them."""
        return row_matrix(self.values, self.kinds, self.max_bin)

    @cached_property
    def task_matrices(self) -> dict[int, xgb.DMatrix]:
        """The rows of every task that has some."""
        return {
            r: row_matrix(np.array(self.values[rows]), self.kinds, 0)
            for r, rows in self.slices.items()
        }

    def chunks(self, depth: int, least: int) -> list[TaskChunk]:
        """The rows as the trees of all tasks grow on them together.

        Args:
            depth: of these trees.
            least: rows that a task needs.
        """
        made: dict[tuple[int, int], list[TaskChunk]] = vars(self)["_chunks"]
        if (depth, least) not in made:
            made.clear()
            made[depth, least] = task_chunks(
                self.values, self.tasks, self.count, max_bin=self.max_bin or len(self),
                depth=depth, least=least,
            )  # fmt: skip
        return made[depth, least]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tasks)
