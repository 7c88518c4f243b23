"""R-MTGB as published, stated plainly on scikit-learn's exact trees. For comparison only.

Source: Emami, Martinez-Munoz, Hernandez-Lobato, "Robust-Multi-Task Gradient Boosting", arXiv
2507.11411, as this project's specification states it, without its defects: rows go to their
own task at prediction, and θ has a generator of its own.
"""

# ruff: noqa: N803 (X is scikit-learn's name for features)

import numpy as np
from sklearn.tree import DecisionTreeRegressor


class ReferenceRMTGB:
    """F = a(x) + (1 - s) b(x) + s c(x) + d_task(x), s = σ(θ_task), in three blocks of rounds.

    Leaves are means of the negative gradient (no second derivatives, no penalty), the score starts
    at zero, and θ moves by the gradient summed over the task's rows.

    Args:
        rounds: of the shared block a, of the pair b and c, and of the tasks' own d.
        learning_rate: of trees and of θ.
        max_depth: 1 gives the published stumps.
        classes: 0 for regression, else the number of classes (two have two scores, as published).
        seed: of θ.
        theta: (T,) to start from instead.
    """

    def __init__(
        self, rounds=(50, 50, 50), learning_rate=0.1, max_depth=1, classes=0, seed=0, theta=None
    ):
        self.rounds = rounds
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.classes = classes
        self.seed = seed
        self.start = theta

    def fit(self, X, y, task):
        """Grow all blocks.

        Args:
            X: (n, F).
            y: (n,) numbers, or classes 0..K-1.
            task: (n,) names, which sort.
        """
        X, rate = np.asarray(X, dtype=np.float32), self.learning_rate
        self.tasks, task = np.unique(task, return_inverse=True)
        target = np.eye(self.classes)[y.astype(int)] if self.classes else np.asarray(y)[:, None]
        rows = [np.flatnonzero(task == r) for r in range(len(self.tasks))]
        theta = 0.1 * np.random.default_rng(self.seed).standard_normal(len(rows))
        self.theta = theta if self.start is None else np.array(self.start, dtype=float)
        a, b, c, d = (np.zeros(target.shape) for _ in range(4))
        self.shared, self.inner, self.outer = [], [], []
        self.own = [[] for _ in rows]

        def slope():
            share = (1 / (1 + np.exp(-self.theta)))[task, None]
            return share, self._slope(a + (1 - share) * b + share * c + d, target)

        for _ in range(self.rounds[0]):
            _, g = slope()
            a += rate * self._grow(self.shared, X, -g)
        for _ in range(self.rounds[1]):
            share, g = slope()
            apart = c - b
            c += rate * self._grow(self.outer, X, -share * g)
            b += rate * self._grow(self.inner, X, -(1 - share) * g)
            for r, mine in enumerate(rows):  # a Python loop over tasks, as published
                s = share[mine[0], 0]
                self.theta[r] -= rate * s * (1 - s) * np.sum(g[mine] * apart[mine])
        for _ in range(self.rounds[2]):
            _, g = slope()
            for trees, mine in zip(self.own, rows, strict=True):
                d[mine] += rate * self._grow(trees, X[mine], -g[mine])
        return self

    def _grow(self, trees, X, target):
        """Fit one tree, keep it, and return its values at its own rows."""
        size = {"max_leaf_nodes": 2} if self.max_depth == 1 else {"max_depth": self.max_depth}
        tree = DecisionTreeRegressor(criterion="squared_error", random_state=0, **size)
        trees.append(tree.fit(X, target))
        return tree.predict(X).reshape(target.shape)

    def _slope(self, scores, target):
        """Derivatives (n, K) of the loss by the scores."""
        if not self.classes:
            return scores - target
        shifted = np.exp(scores - scores.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True) - target

    def scores(self, X, task):
        """F (n, K).

        Args:
            X: (n, F).
            task: (n,) names that training had.
        """
        X, place = np.asarray(X, dtype=np.float32), np.searchsorted(self.tasks, task)

        def total(trees, rows):
            values = np.zeros((len(rows), max(self.classes, 1)))
            for tree in trees:
                values += tree.predict(rows).reshape(values.shape)
            return self.learning_rate * values

        share = (1 / (1 + np.exp(-self.theta)))[place, None]
        found = total(self.shared, X)
        found += (1 - share) * total(self.inner, X) + share * total(self.outer, X)
        for r in np.unique(place):
            found[place == r] += total(self.own[r], X[place == r])
        return found

    def predict(self, X, task):
        """Numbers or classes (n,).

        Args:
            X: (n, F).
            task: (n,) names that training had.
        """
        scores = self.scores(X, task)
        return scores.argmax(1) if self.classes else scores[:, 0]

    def predict_proba(self, X, task):
        """Shares of the classes (n, K).

        Args:
            X: (n, F).
            task: (n,) names that training had.
        """
        scores = self.scores(X, task)
        shifted = np.exp(scores - scores.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)
