"""Sums over processes: parts that are summed give what all rows give."""

import numpy as np
import pytest

from mtl_tabular.boosting.objectives import Logistic, Softmax, Squared
from mtl_tabular.boosting.reduce import alone, balanced_weights, common_intercept, task_rows

RNG = np.random.default_rng(0)
TASKS = RNG.integers(0, 4, 60)
WEIGHTS = RNG.uniform(0.5, 2, 60)


def other(call):
    """What the second half would hand to the sum, for the first half to add."""
    told = []

    def listen(sums):
        told.append(sums)
        return sums

    call(listen)
    return lambda sums: sums + told[0]


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (Squared(), RNG.normal(size=60)),
        (Logistic(), RNG.integers(0, 2, 60)),
        (Softmax(3), RNG.integers(0, 3, 60)),
    ],
)
def test_intercepts_of_halves(loss, targets):
    numeric = isinstance(loss, Squared)
    whole = loss.intercept(targets, WEIGHTS)
    halves = [
        lambda reduce, rows=rows: common_intercept(
            loss, targets[rows], WEIGHTS[rows], numeric=numeric, reduce=reduce
        )
        for rows in (slice(0, 25), slice(25, None))
    ]
    np.testing.assert_allclose(halves[0](other(halves[1])), whole)
    np.testing.assert_allclose(halves[1](other(halves[0])), whole)
    every = common_intercept(loss, targets, WEIGHTS, numeric=numeric, reduce=alone)
    np.testing.assert_allclose(every, whole)


def test_balanced_tasks_weigh_the_same():
    weights = balanced_weights(WEIGHTS, TASKS, 6)
    sums = np.bincount(TASKS, weights, 6)
    np.testing.assert_allclose(sums[:4], WEIGHTS.sum() / 4)
    halves = [
        lambda reduce, rows=rows: balanced_weights(WEIGHTS[rows], TASKS[rows], 6, reduce)
        for rows in (slice(0, 25), slice(25, None))
    ]
    found = halves[0](other(halves[1])), halves[1](other(halves[0]))
    np.testing.assert_allclose(np.concatenate(found), weights)


def test_rows_of_tasks():
    np.testing.assert_array_equal(task_rows(TASKS, 6), np.bincount(TASKS, minlength=6))
