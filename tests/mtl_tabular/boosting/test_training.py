"""Loops by themselves: losses fall, a resumed loop is one loop, small tasks are left out."""

from itertools import pairwise

import numpy as np
import pytest

from mtl_tabular.boosting.additive import AdditiveModel
from mtl_tabular.boosting.blocks import RowSet
from mtl_tabular.boosting.objectives import Logistic, Softmax, Squared, initial_theta
from mtl_tabular.boosting.training import Boosting, Plan

PARAMETERS = {"max_depth": 3, "learning_rate": 0.2, "nthread": 1, "tree_method": "hist", "seed": 0}
T = 4
LOSSES = [Squared(), Logistic(), Softmax(3)]
IDS = ["squared", "logistic", "softmax"]


def rows(loss, n=200, seed=0, held=False):
    rng = np.random.default_rng(seed)
    tasks = np.sort(rng.integers(0, T, n))
    X = rng.normal(size=(n, 3)).astype(np.float32)
    signal = np.where(tasks == 3, -1, 1) * X[:, 0]
    y = signal
    if not isinstance(loss, Squared):
        edges = [0.0] if loss.outputs == 1 else [-0.5, 0.5]
        y = np.digitize(signal, edges)
    return RowSet(X, y, np.ones(n), tasks, T, ("q",) * 3, 0 if held else 256)


def empty(loss, train, together=True):
    return AdditiveModel(
        count=T, groups=2, intercept=loss.intercept(train.targets, train.weights),
        theta=initial_theta(T, 2, 0), rows=np.bincount(train.tasks, minlength=T),
        shared=PARAMETERS, grouped=[PARAMETERS] * 2, own=[PARAMETERS] * T,
        together=together,
    )  # fmt: skip


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_the_training_loss_falls_with_every_block(loss, interleaved):
    told = []
    train, held = rows(loss), rows(loss, seed=1, held=True)
    plan = Plan(rounds=(5, 10, 5), interleaved=interleaved)
    boosting = Boosting(empty(loss, train), loss, plan, train, held, [told.append])
    before = boosting.held_out_loss()
    boosting.run()
    losses = [t.loss for t in told]
    assert len(losses) == (10 if interleaved else 20)
    assert all(b <= 1.02 * a for a, b in pairwise(losses))  # θ may overshoot a little
    assert boosting.held_out_loss() < 0.8 * before


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_kept_sums_are_the_models_scores(loss, together):
    """What the loop adds up round by round is what the trained model says of the same rows."""
    train, held = rows(loss), rows(loss, seed=1, held=True)
    model = empty(loss, train, together)
    boosting = Boosting(model, loss, Plan(rounds=(3, 6, 3)), train, held)
    boosting.run()
    scores = model.scores(held, held.tasks)
    value = float(loss.value(scores, held.targets).mean())
    assert boosting.held_out_loss() == pytest.approx(value, abs=1e-5)
    same = RowSet(train.values, train.targets, train.weights, train.tasks, T, ("q",) * 3, 0)
    np.testing.assert_allclose(model.scores(same, same.tasks), boosting.score, atol=1e-4)


def test_early_stopping_forgets_what_came_after_the_best():
    loss = Squared()
    train = rows(loss)
    noise = np.random.default_rng(5).normal(size=len(train))
    train.targets[:] += noise
    held = rows(loss, seed=1, held=True)
    told = []
    plan = Plan(rounds=(200, 200, 200), patience=4)
    boosting = Boosting(empty(loss, train), loss, plan, train, held, [told.append])
    boosting.run()
    assert boosting.held_out_loss() == pytest.approx(min(t.held_out for t in told), abs=1e-5)
    assert sum(boosting.model.rounds) < len(told) < 600


@pytest.mark.parametrize("loss", LOSSES, ids=IDS)
def test_trees_that_grow_together_are_those_of_a_booster_a_task(loss):
    train = rows(loss)
    models = [empty(loss, train, together) for together in (False, True)]
    for model in models:
        Boosting(model, loss, Plan(rounds=(2, 2, 12)), train).run()
    boosters, forest = (model.scores(rows(loss, held=True), train.tasks) for model in models)
    np.testing.assert_allclose(forest, boosters, atol=1e-5)


@pytest.mark.parametrize("together", [False, True])
def test_small_tasks_have_no_block(together):
    loss = Squared()
    train = rows(loss)
    counts = np.bincount(train.tasks)
    plan = Plan(rounds=(0, 0, 2), min_task_rows=int(counts.max()))
    model = empty(loss, train, together)
    boosting = Boosting(model, loss, plan, train)
    boosting.run()
    assert model.own.rounds == 2
    np.testing.assert_array_equal(
        boosting.margins.own[:, 0] != 0, (counts == counts.max())[train.tasks]
    )


def test_no_held_out_rows_no_loss():
    loss = Squared()
    train = rows(loss)
    told = []
    Boosting(empty(loss, train), loss, Plan(rounds=(2, 0, 0), patience=1), train,
             callbacks=[told.append]).run()  # fmt: skip
    assert np.isnan([t.held_out for t in told]).all()
    assert len(told) == 2
