"""The trained sum: groups may be relabelled, parts add up, rows do not know each other."""

import numpy as np
import pytest
import xgboost as xgb

from mtl_tabular.boosting.additive import AdditiveModel, Margins
from mtl_tabular.boosting.blocks import FeatureRows, RowSet

PARAMETERS = {"max_depth": 2, "learning_rate": 0.5, "nthread": 1, "tree_method": "hist", "seed": 0}
n, T = 120, 5
X = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
TASKS = np.sort(np.random.default_rng(1).integers(0, T, n))


def asked(values):
    return FeatureRows(values, ("q",) * 3)


def model(groups=2, outputs=2, theta=None):
    """Blocks of random trees; task 3 has none of its own."""
    rng = np.random.default_rng(2)
    made = AdditiveModel(
        count=T, groups=groups, intercept=np.arange(outputs) + 1.0,
        theta=rng.normal(size=(T, groups - 1)) if theta is None else theta,
        rows=np.bincount(TASKS, minlength=T), shared=PARAMETERS,
        grouped=[PARAMETERS] * groups, own=[PARAMETERS] * T,
    )  # fmt: skip
    matrix = xgb.QuantileDMatrix(X)
    for block in [made.shared, *made.groups]:
        for _ in range(2):
            block.grow(matrix, rng.normal(size=(n, outputs)), np.ones((n, outputs)))
    rows = RowSet(X, np.zeros(n), np.ones(n), TASKS, T, ("q",) * 3)
    made.own.grow(
        rows, rng.normal(size=(n, outputs)), np.ones((n, outputs)),
        least=1, scores=np.zeros((n, outputs), np.float32),
    )  # fmt: skip
    for tree in made.own.trees[0]:
        tree.roots[3] = -1
    made.thetas += [made.theta + 0.1, made.theta + 0.3]
    return made


@pytest.mark.parametrize("groups", [2, 4])
def test_relabelled_groups_are_the_same_model(groups):
    """Property 2, with the largest group first afterwards."""
    made, rows = model(groups), asked(X)
    before = made.scores(rows, TASKS)
    staged = list(made.staged(rows, TASKS, together=False))
    made.canonicalise()
    np.testing.assert_allclose(made.scores(rows, TASKS), before, atol=1e-5)
    for old, new in zip(staged, made.staged(rows, TASKS, together=False), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5)
    counts = np.bincount(made.shares.argmax(1), minlength=groups)
    assert (np.diff(counts) <= 0).all()
    if groups == 2:
        assert (made.shares[:, 1] > 0.5).sum() <= T / 2


def test_swapping_two_groups_by_hand_changes_nothing():
    made, rows = model(), asked(X)
    before = made.scores(rows, TASKS)
    made.groups.reverse()
    made.thetas = [-theta for theta in made.thetas]
    np.testing.assert_allclose(made.scores(rows, TASKS), before, atol=1e-5)


def test_ties_go_to_the_group_with_more_rows():
    made = model(theta=np.array([[3.0], [3.0], [-3.0], [-3.0], [-3.0]]))
    made.rows = np.array([100, 100, 1, 1, 1])
    made.canonicalise()
    assert (made.shares[:, 0] > 0.5).tolist() == [False, False, True, True, True]
    even = model(theta=np.array([[3.0], [3.0], [-3.0], [-3.0], [-3.0]]))
    even.count, even.rows = 4, np.array([100, 100, 1, 1])
    even.thetas = [theta[:4] for theta in even.thetas]
    even.canonicalise()
    assert (even.shares[:, 0] > 0.5).tolist() == [True, True, False, False]


def test_a_row_does_not_depend_on_the_others():
    """Property 4: neither rows nor tasks of the call matter, nor their order."""
    made = model()
    whole = made.scores(asked(X), TASKS)
    for rows in (np.array([7]), np.flatnonzero(TASKS == 2), np.arange(n)[::-1]):
        part = made.scores(asked(X[rows]), TASKS[rows])
        np.testing.assert_array_equal(part, whole[rows])


def test_unknown_tasks_get_the_mean_share_and_no_block():
    made, rows = model(), asked(X)
    margins = made.margins(rows, TASKS)
    mean = np.average(made.shares, axis=0, weights=made.rows)
    expected = made.intercept + margins.shared + np.einsum("g,gnk->nk", mean, margins.groups)
    unknown = made.scores(rows, np.full(n, -1))
    np.testing.assert_allclose(unknown, expected, atol=1e-5)
    assert not margins.own[TASKS == 3].any()
    assert margins.own[TASKS == 2].any()


@pytest.mark.parametrize(("together", "stages"), [(False, 5), (True, 2)])
def test_the_last_stage_is_the_model(together, stages):
    made, rows = model(), asked(X)
    found = list(made.staged(rows, TASKS, together=together))
    assert len(found) == stages
    np.testing.assert_allclose(found[-1], made.scores(rows, TASKS), atol=1e-5)


def test_forgetting_rounds():
    made, rows = model(), asked(X)
    stage = list(made.staged(rows, TASKS, together=False))[2]
    made.keep(2, 1, 0)
    assert made.rounds == (2, 1, 0)
    np.testing.assert_allclose(made.scores(rows, TASKS), stage, atol=1e-5)


def test_state_round_trip():
    made, rows = model(), asked(X)
    other = model(theta=np.zeros((T, 1))).restore(made.state())
    np.testing.assert_array_equal(other.scores(rows, TASKS), made.scores(rows, TASKS))
    assert other.rounds == made.rounds


def test_margins_start_at_zero():
    total = Margins.zeros(3, 2, 1).total(np.array([2.0]), np.full((3, 2), 0.5))
    assert total.tolist() == [[2], [2], [2]]
