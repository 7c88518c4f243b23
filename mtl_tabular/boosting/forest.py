"""The task blocks of R-MTGB: trees of all tasks, grown together round by round."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_tabular.boosting.blocks import Rows, RowSet
from mtl_tabular.boosting.grown import Grown, Ints, Rounded, TreeRules
from mtl_tabular.boosting.matrix import taken
from mtl_tabular.boosting.objectives import Floats

KNOWN = frozenset(
    ("max_depth", "learning_rate", "reg_lambda", "reg_alpha", "min_child_weight", "gamma",
     "subsample", "colsample_bytree", "max_bin", "tree_method", "nthread", "device", "seed")
)  # fmt: skip
"""Parameters of XGBoost that a forest understands."""
STEP = 1 << 17
"""Trees times rows that are asked at once."""


class TaskForest:
    """One ensemble with K outputs a task, whose trees grow together.

    The trees are those that XGBoost's histograms would grow task by task, a bin for every distinct
    value where there are no more than ``max_bin`` (quantiles of the rows otherwise). What one task
    gets does not depend on other tasks' rows, not even by rounding. Features are numbers; missing
    ones go where the loss falls most. It runs on one thread of the processor whatever ``nthread``
    and ``device`` say.

    Args:
        parameters: of XGBoost's trees, one record a task; they may differ in ``learning_rate``
            and ``seed``. Samples of rows and columns are drawn by the first seed, the task and the
            round.
        outputs: K; every round has a tree an output.
    """

    def __init__(self, parameters: list[dict[str, Any]], *, outputs: int = 1) -> None:
        common = parameters[0]
        self.learning_rates = np.array([float(p["learning_rate"]) for p in parameters])
        self.rules = TreeRules(
            max_depth=int(common["max_depth"]),
            reg_lambda=float(common.get("reg_lambda", 1.0)),
            reg_alpha=float(common.get("reg_alpha", 0.0)),
            min_child_weight=float(common.get("min_child_weight", 1.0)),
            gamma=float(common.get("gamma", 0.0)),
        )
        self.subsample = float(common.get("subsample", 1.0))
        self.colsample = float(common.get("colsample_bytree", 1.0))
        self.seed = int(common.get("seed", 0))
        self.outputs = outputs
        self.trees: list[list[Grown]] = []
        """By round and output."""
        self._flat: dict[tuple[int, int, int], _Flat] = {}

    @staticmethod
    def supports(parameters: dict[str, Any]) -> bool:
        """Whether trees with these parameters of XGBoost are of the kind that a forest grows."""
        return parameters.get("tree_method", "hist") == "hist" and set(parameters) <= KNOWN

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.learning_rates)

    @property
    def rounds(self) -> int:
        """Rounds so far."""
        return len(self.trees)

    def grow(
        self, train: RowSet, gradient: Floats, hessian: Floats, *, least: int, scores: Floats
    ) -> None:
        """Add one round.

        Args:
            train: n rows.
            gradient: (n, K).
            hessian: (n, K).
            least: rows that a task needs to get a tree.
            scores: (n, K) of the rows, to which those of the round are added.
        """
        chunks = train.chunks(self.rules.max_depth, least)
        allowed = self._features(train.values.shape[1])
        grown: list[list[Grown]] = [[] for _ in range(self.outputs)]
        for chunk in chunks:
            rows, sizes = chunk.rows, chunk.layout.sizes
            some = None if allowed is None else allowed[:, chunk.tasks]
            sampled = self._sampled(chunk.tasks, sizes)
            for k in range(self.outputs):
                g, h = gradient[rows, k], hessian[rows, k]
                if sampled is not None:
                    g, h = np.where(sampled, g, 0), np.where(sampled, h, 0)
                trees, leaf = chunk.layout.grow(
                    Rounded.of(g, h, sizes), self.rules, self.learning_rates[chunk.tasks], some
                )
                grown[k].append(trees)
                scores[rows, k] += trees.value[leaf]
        tasks = [chunk.tasks for chunk in chunks]
        self.trees.append([Grown.join(parts, tasks, len(self)) for parts in grown])

    def _sampled(self, tasks: Ints, sizes: Ints) -> NDArray[np.bool_] | None:
        if self.subsample == 1:
            return None
        drawn = [
            np.random.default_rng((self.seed, self.rounds, int(r))).random(int(size))
            for r, size in zip(tasks, sizes, strict=True)
        ]
        return np.concatenate(drawn) < self.subsample

    def _features(self, count: int) -> NDArray[np.bool_] | None:
        """Features (F, T) that the round's trees may split."""
        if self.colsample == 1:
            return None
        chosen = max(1, int(self.colsample * count))
        rng = np.random.default_rng((self.seed, self.rounds))
        return chosen > rng.random((len(self), count)).argsort(1).argsort(1).T

    def training_scores(self, train: RowSet) -> Floats:
        """Scores (n, K) of all rounds on the rows that the trees grew on."""
        return self.part(train, train.tasks, 0, self.rounds)

    def part(self, rows: Rows, tasks: NDArray[np.int64], start: int, stop: int) -> Floats:
        """Scores (n, K) of the rounds from `start` to before `stop`.

        Args:
            rows: n rows.
            tasks: (n,), -1 where unknown; unknown tasks and those without trees have score 0.
            start: first round.
            stop: round before which to stop.
        """
        stop = min(stop, self.rounds)
        scores = np.zeros((len(tasks), self.outputs), np.float32)
        if start >= stop:
            return scores
        known = np.flatnonzero(tasks >= 0)
        step = max(1, STEP // (stop - start))
        for k in range(self.outputs):
            flat = self._flattened(start, stop, k)
            for a in range(0, len(known), step):
                some = known[a : a + step]
                scores[some, k] = flat.scores(taken(rows.values, some), tasks[some])
        return scores

    def _flattened(self, start: int, stop: int, output: int) -> "_Flat":
        key = (start, stop, output)
        if key not in self._flat:
            flat = _Flat([trees[output] for trees in self.trees[start:stop]], self.rules.max_depth)
            if (start, stop) != (0, self.rounds):
                return flat
            self._flat = {k: v for k, v in self._flat.items() if k[:2] == (start, stop)}
            self._flat[key] = flat
        return self._flat[key]

    def keep(self, rounds: int) -> None:
        """Forget all but the first rounds."""
        del self.trees[rounds:]
        self._flat = {}

    def gains(self, features: int) -> NDArray[np.float64]:
        """Sum of the gains of all splits by feature and task, (features, T)."""
        total = np.zeros((features, len(self)))
        for trees in self.trees:
            for tree in trees:
                splits = np.flatnonzero(tree.left >= 0)
                np.add.at(total, (tree.feature[splits], tree.tasks()[splits]), tree.gain[splits])
        return total

    def state(self) -> dict[str, Any]:
        """Rounds and trees as plain data."""
        return {
            "kind": "forest",
            "trees": [[tree.state() for tree in trees] for trees in self.trees],
        }

    def restore(self, state: dict[str, Any]) -> Self:
        """Take rounds and trees from plain data.

        Args:
            state: of `state`.
        """
        self.trees = [[Grown.restore(tree) for tree in trees] for trees in state["trees"]]
        self._flat = {}
        return self


class _Flat:
    """Trees of several rounds as one table in which a leaf is its own child."""

    def __init__(self, trees: list[Grown], depth: int) -> None:
        count = len(trees[0].roots)
        whole = Grown.join(
            trees, [np.arange(count) + i * count for i in range(len(trees))], len(trees) * count
        )
        nodes = np.arange(len(whole) + 1)  # the last one is a leaf for tasks without a tree
        leaf = np.append(whole.left < 0, True)
        self.left = np.where(leaf, nodes, np.append(whole.left, -1))
        self.feature = np.append(whole.feature, 0).astype(np.int64)
        self.threshold = np.append(whole.threshold, np.float32(0))
        self.threshold[leaf] = np.nan  # no value is on the right of it
        self.missing_right = ~leaf & ~np.append(whole.missing_left, True)
        self.value = np.append(whole.value, np.float32(0))
        self.roots = whole.roots.reshape(len(trees), count)
        self.depth = depth

    def scores(self, values: NDArray[np.float32], tasks: Ints) -> NDArray[np.float32]:
        """Sum (n,) over the rounds, one after the other, as training adds them up.

        Args:
            values: (n, F).
            tasks: (n,) known ones.
        """
        flat = np.ascontiguousarray(values, np.float32).ravel()
        holes = bool(np.isnan(flat).any())
        begins = np.arange(len(values)) * values.shape[1]
        node = self.roots[:, tasks]
        for _ in range(self.depth):
            place = self.feature.take(node, mode="wrap")
            place += begins
            found = flat.take(place)
            right = found >= self.threshold.take(node, mode="wrap")
            if holes:
                right |= np.isnan(found) & self.missing_right.take(node, mode="wrap")
            node = self.left.take(node, mode="wrap") + right
        total = np.zeros(len(values), np.float32)
        for scores in self.value.take(node, mode="wrap"):
            total += scores
        return total
